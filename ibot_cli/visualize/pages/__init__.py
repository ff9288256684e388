"""Self-contained HTML pages: everything inline, light and dark, no request to anywhere."""

from ibot_cli.visualize.pages.page import check_page_path, render_page, write_page
from ibot_cli.visualize.pages.picture import inline_image

__all__ = ["check_page_path", "inline_image", "render_page", "write_page"]
