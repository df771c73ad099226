from finr1.grpo.trainer import train
from finr1.params import GRPOParams
from finr1.run import child_main

child_main(train, GRPOParams)
