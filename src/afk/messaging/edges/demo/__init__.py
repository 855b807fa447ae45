"""A small newsroom over one store, every agent in its own process: `afk demo [FOLDER]`.

    coordinator ── each file ──▶ researcher, researcher     (one mailbox, two competing processes)
    researcher  ── finding ────▶ writer                     (leaves with the ack: an atomic turn)
    writer      ── draft ──────▶ editor                     (in the turn of the last finding)
    editor      ── revise? ────▶ writer ── answer ──▶ editor
    editor      ── published ──▶ coordinator

`mail` says what they tell each other, `agents` what each does with it; `folder`, `texts` and
`report` do the reading and writing without a bus; `shelf` is the output folder. `newsroom` starts,
kills and counts the `processes`, and `story` turns what they say into what `view` shows.
"""
