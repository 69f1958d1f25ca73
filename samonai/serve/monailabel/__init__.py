"""MONAI Label's server protocol, for 3D Slicer's MONAI Label module and OHIF's extension.

The requests are those that the clients of `monailabel` 0.8.5 send; what they read of an answer is
in their `client.py` (3D Slicer) and `MonaiLabelClient.js` (OHIF). Points, boxes and masks are in
voxel indices i, j, k of the image that the client holds, and nothing is reoriented.
"""

from samonai.serve.monailabel.routes import monailabel_routes

__all__ = ["monailabel_routes"]
