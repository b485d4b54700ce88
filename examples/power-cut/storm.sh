#!/bin/sh
# Many folders and files come and go, and then everything is synced, five times: sh storm.sh FOLDER
cd "$1" || exit 1
for round in 1 2 3 4 5; do
  for i in $(seq 1 60); do
    mkdir -p "d$round/$i"
    echo x > "d$round/$i/f"
  done
  for i in $(seq 1 3 60); do rm -r "d$round/$i"; done
  sync
  echo "ACK $round"
done
