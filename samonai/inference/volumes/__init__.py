"""Volume inference: slices into 3D label maps, propagation, three-plane averaging."""
