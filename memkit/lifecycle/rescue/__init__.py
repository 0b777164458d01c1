"""After a death that nothing could stop, the next kernel has the variables back.

A forked child holds a copy-on-write picture of all variables while the kernel lives (`child`, `keeping`), writes them
to disk when it has died (`saving`, `writer`), and the next kernel finds and takes over what it wrote (`sets`,
`adoption`).
"""
