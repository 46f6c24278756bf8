"""
The file transfer: the box's part of push and fetch, and code that the client shares.

On the box: `file_ops` (the operations), `apply_push`, `push_record`,
`collect_outputs`. Manifests: `manifest` (scan, compare), `manifest_exchange` (send and
receive), `hash_index`, `key_value_file`, `block_hashes`. Contents: `sender`,
`receiver`, `content_stream` (the format, and its compression), `content_reader`,
`previous_version` (unchanged blocks of big files), `striping` (several connections),
`folder_writer` (safe writes).
"""
