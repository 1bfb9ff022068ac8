"""The denoising networks that the method runs on."""
