from setuptools import setup

setup(name="pyatom", version="1.2", py_modules=["pyatom"])
