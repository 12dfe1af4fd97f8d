"""One epoch over 50,000 images from the start of the process, as people write it.

A script takes the path of an .npz (images uint8 (N,32,32,3), labels (N,)) and the batch size,
trains M1 for one epoch, and prints the seconds that its imports took.
"""
