"""What setup.cfg cannot say: the C extension with the BPF object inside."""

import setuptools

setuptools.setup(pbr=True)
