/**
 * A machine whose migration stream has more than the simplest one: a device that goes before the RAM
 * (virtio-mem), one with much state (e1000), several RAM blocks.
 *
 * @module
 */

/** Arguments for QEMU, for a guest of 48 MiB. */
export const LARGE_MACHINE: readonly string[] = (
  "-m 48M,maxmem=1G -object memory-backend-ram,id=more,size=256M " +
  "-device virtio-mem-pci,memdev=more,id=vm0 -device VGA -device e1000"
).split(" ");
