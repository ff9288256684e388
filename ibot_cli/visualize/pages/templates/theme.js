try { const t = localStorage.getItem("ibot-theme"); if (t) document.documentElement.dataset.theme = t; } catch { /* storage may be off */ }
