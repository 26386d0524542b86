"""What does a network forget when it is pruned, and does that depend on how it learned?"""
