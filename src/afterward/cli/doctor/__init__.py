"""`afterward doctor`: what is wrong or risky, and the mend."""
