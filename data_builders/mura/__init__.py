"""MURA v1.1: films of the upper extremity, by study and body part."""
