"""
Files: what push and fetch do on the box, and what both ends share.

On the box: `file_ops` (the operations), `apply_push`, `push_record`,
`collect_outputs`. Manifests: `manifest` (scan, compare), `manifest_exchange` (how they
travel), `hash_index`, `key_value_file`, `block_hashes`. Contents: `sender`, `receiver`,
`content_stream` (the format, and its compression), `content_reader`, `previous_version`
(unchanged blocks of big files), `striping` (several connections), `folder_writer` (safe
writes).
"""
