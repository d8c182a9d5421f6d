#%Module1.0
# Environment Modules (and Lmod): a copy in MODULEPATH as trident/0.1.0, with root set to where it
# was installed.
set root /opt/trident/0.1.0

proc ModulesHelp {} {
    puts stderr "Trident trains mixture-of-experts language models on CPU clusters."
    puts stderr "`man trident`, `trident help`; examples are in share/doc/trident/examples."
}
module-whatis "trainer of mixture-of-experts language models over MPI, 0.1.0"

# The MPI that it was built with, where that is a module of its own:
# prereq openmpi

prepend-path PATH $root/bin
prepend-path PKG_CONFIG_PATH $root/lib/pkgconfig
prepend-path CMAKE_PREFIX_PATH $root
setenv TRIDENT_ROOT $root
