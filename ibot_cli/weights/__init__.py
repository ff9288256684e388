"""Weights in and out.

In, from a file, folder or name to a network:

- `load`: `load_weights`, and the table of layouts; `loaded`, `origin`: what it returns.
- `files`, `safetensors_file`: a file as names and tensors, nothing executed; `strangers`, `folders`: why something else
  is refused.
- `layouts`: one reader per kind of file or folder; each returns a `layouts.found.Found`, the shape of a network and
  tensors in its names. What readers share: `shapes` (shapes from tensors), `layer_scale`, `norm_epsilon`.
- `assembly`, `fill`: from there to a network in which every tensor is loaded, named, or an error.
- `finetuned`, `teacher_scale`, `description`: what our own files say besides tensors.
- `timm_names`, `timm_models`, `timm_parts`: networks that timm downloads, runs, and those that are ours after all.

Further use: `trainable`, `adapted` (weights to train on, at other sizes and channels), `statistics` (for `ibot
inspect`), `export` (weights out).
"""
