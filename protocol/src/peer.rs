//! What nodes say to each other about sessions and matches, over the mesh's channels.
