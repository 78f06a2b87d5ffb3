"""Volumes served on this machine alone: to the built-in page, Neuroglancer, vizarr and napari."""
