"""The one compiled part; all else about the package is in pyproject.toml."""

from setuptools import Extension, setup
from setuptools.command.build_py import build_py


class PythonFiles(build_py):
    """The package's modules. Its root folder is the repository's, where this file lies too."""

    def find_package_modules(self, package, package_dir):
        found = super().find_package_modules(package, package_dir)
        return [one for one in found if one[:2] != ("skrd4ad", "setup")]


setup(
    cmdclass={"build_py": PythonFiles},
    ext_modules=[
        Extension(
            "skrd4ad.engine._resize",
            # Plain C that ctypes loads (engine/native_resize.py). Without a compiler the
            # installation goes on, and Pillow resizes.
            ["engine/kernels/resize.c"],
            extra_compile_args=["-O3"],
            optional=True,
        )
    ],
)
