#!/bin/bash
# Raspberry Pi OS Bookworm runs /boot/firmware/firstrun.sh once, before anything else, when cmdline.txt ends in
#   systemd.run=/boot/firmware/firstrun.sh systemd.run_success_action=reboot systemd.unit=kernel-command-line.target
# (Raspberry Pi Imager writes both; put the lines of this file before the last ones of its firstrun.sh.) Beside it on
# the boot partition lie the folder iot-agent (this repository with deploy/ and wheelhouse/, no network needed),
# iot-agent.toml and, where the center asks for one, iot-agent-enrollment.key.
set +e

raspi-config nonint do_i2c 0
bash /boot/firmware/iot-agent/deploy/install.sh --no-start # it starts with the reboot that follows

rm -f /boot/firmware/firstrun.sh
sed -i 's| systemd\.run.*||' /boot/firmware/cmdline.txt
exit 0
