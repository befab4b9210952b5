#!/bin/busybox sh
# First process of the benchmark's guest. It makes the memory of a small server: a page cache (the
# payload lies in the RAM disk, which is memory), the kernel's own tables, and a process with a heap.
# Then it ticks once a second; the snapshot is taken while it does.
/bin/busybox mkdir -p /proc /sys /dev /tmp
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox --install -s /bin
export PATH=/bin
exec </dev/null >/dev/ttyS0 2>&1

# A heap of hash nodes, pointers, short strings and numbers, about 110 bytes for each key. The pipe
# tells that it is complete, and never ends, which holds the process and its memory.
heap_mib=$(sed -n 's/.*heap_mib=\([0-9]*\).*/\1/p' /proc/cmdline)
mkfifo /tmp/heap /tmp/never
awk -v keys=$((${heap_mib:-0} * 9500)) 'BEGIN {
  for (i = 0; i < keys; i++) table["key" i] = i * 7 ":" i % 97
  print keys > "/tmp/heap"
  close("/tmp/heap")
  getline < "/tmp/never"
}' &
read -r keys </tmp/heap

find / -xdev >/tmp/files
dmesg >/tmp/dmesg
free
echo "READY with $keys keys"
tick=0
while :; do
  echo "TICK $tick"
  tick=$((tick + 1))
  sleep 1
done
