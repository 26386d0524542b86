"""Pictures of arrays that already lie on disk."""
