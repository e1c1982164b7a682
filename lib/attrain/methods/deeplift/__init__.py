"""DeepLIFT: the method, its bookkeeping of differences, its rules, secants."""
