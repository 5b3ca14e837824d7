"""Are PyTorch's classification losses the functions they claim to be, as accurately as the arithmetic allows?"""
