# A package of a Spack repository: packages/trident/package.py. The source is said by `spack develop
# --path SOURCE trident@0.1.0`, before `spack install`.
from spack.package import *


class Trident(CMakePackage):
    """Trainer of mixture-of-experts language models on CPU clusters, in C17 over MPI. Cuts a model
    over tensor, expert and data ranks; one rank or many give the same loss and gradients."""

    license("Apache-2.0")

    version("0.1.0")

    depends_on("c", type="build")
    depends_on("cmake@3.25:", type="build")
    depends_on("ninja", type="build")
    depends_on("pkgconfig", type="build")
    depends_on("mpi@3.1:")
    depends_on("onednn@2.7:")
    depends_on("hwloc@2.9:")
    depends_on("jansson")
    depends_on("libyaml")
    depends_on("xxhash")
    depends_on("pcre2")
    depends_on("utf8proc")
    depends_on("zlib-api")
    depends_on("zstd")
    depends_on("protobuf-c")
    depends_on("cmocka", type=("build", "test"))

    generator("ninja")

    def cmake_args(self):
        return [
            self.define("MPI_C_COMPILER", self.spec["mpi"].mpicc),
            self.define("TRIDENT_TEST_FOLDERS", ""),
        ]
