-- Lmod: a copy in MODULEPATH as trident/0.1.0.lua, with root set to where it was installed.
local root = "/opt/trident/0.1.0"

help([[Trident trains mixture-of-experts language models on CPU clusters.
`man trident`, `trident help`; examples are in share/doc/trident/examples.]])
whatis("Name: trident")
whatis("Version: 0.1.0")
whatis("Description: trainer of mixture-of-experts language models over MPI")

-- The MPI that it was built with, where that is a module of its own:
-- depends_on("openmpi/4.1")

prepend_path("PATH", pathJoin(root, "bin"))
prepend_path("PKG_CONFIG_PATH", pathJoin(root, "lib/pkgconfig"))
prepend_path("CMAKE_PREFIX_PATH", root)
setenv("TRIDENT_ROOT", root)
