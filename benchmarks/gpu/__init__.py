"""What only a GPU can show: numbered steps, run one after the other by ``run.sh``."""
