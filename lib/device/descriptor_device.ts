/**
 * A ready-made device: its state is whatever can be read from a file descriptor, and is loaded by
 * writing it to one. Reads go straight into the buffers of the channels, writes straight out of the
 * queue.
 *
 * A thread blocked in a read or write of a pipe could never be stopped, so it is polled for first;
 * and a pipe is written through an open of its own, since only that may be non-blocking without
 * changing the caller's descriptor.
 *
 * @module
 */
import { Arena } from "../../ffi/arena.ts";
import { close, Errno, openFile, poll, readFd, unwrap, writeFd } from "../../ffi/libc.ts";
import { OpenFlag, PollEvent } from "../../ffi/linux.ts";
import { factsOfDescriptor } from "../storage/file_facts.ts";
import { DEVICE_BUFFER_BYTES, WAIT_TICK_MS } from "../limits.ts";
import { checkOptionNames, type OptionNames } from "../option_names.ts";
import {
  DEVICE_SETTINGS,
  type DescriptorState,
  type DeviceDefinition,
  type DeviceSettings,
} from "./device.ts";
import type { LoadDevice } from "./load_context.ts";
import type { SaveDevice } from "./save_context.ts";

/** How long a buffer that has something in it waits for more before it is sent as it is. */
const FILL_WAIT_MS = 10;

/** Bytes that a pipe or device takes without blocking when it is ready (PIPE_BUF). */
const BLOCKING_WRITE_BYTES = 4096;

/** What a descriptor device is made of. */
export interface DescriptorDeviceOptions extends DeviceSettings {
  /** Descriptor to read from (sender) and to write to (receiver), at its position. */
  readonly fd: number;
  /** Bytes of one buffer, 1 to 1 MiB. Default 1 MiB. */
  readonly chunkBytes?: number | undefined;
}

const DESCRIPTOR_DEVICE_OPTIONS = {
  ...DEVICE_SETTINGS,
  fd: true,
  chunkBytes: true,
} satisfies OptionNames<DescriptorDeviceOptions>;

/**
 * A device over a file descriptor: a file, a pipe, a socket or a character device. The caller keeps
 * the descriptor open until the session has ended, and closes it.
 *
 * @example
 * ```ts
 * await using sender = await connect({ endpoint, blocks });
 * await sender.registerDevice(descriptorDevice({ idstr: "0000:00:05.0/vfio", fd }));
 * ```
 */
export function descriptorDevice(options: DescriptorDeviceOptions): DeviceDefinition {
  checkOptionNames(DESCRIPTOR_DEVICE_OPTIONS, options);
  const { fd, chunkBytes = DEVICE_BUFFER_BYTES, ...device } = options;
  const code: DescriptorState = { builtin: "descriptor", fd, chunkBytes };
  return { ...device, save: code, load: code };
}

/** Reads the descriptor until its end. */
export function saveDescriptor(device: SaveDevice, { fd, chunkBytes }: DescriptorState): void {
  const ready = new Readiness(fd);
  for (let ended = false; !ended;) {
    // Waiting comes first: a slow source must not hold a buffer that others could fill.
    ready.wait(PollEvent.IN, device);
    const { address } = device.prepare();
    let filled = 0;
    let readable = false;
    try {
      do {
        const got = readFd(fd, address + filled, chunkBytes - filled);
        if (got === -Errno.EINTR || got === -Errno.EAGAIN) continue;
        ended = unwrap("Cannot read device state", got) === 0;
        filled += got;
      } while (!ended && filled < chunkBytes && ready.within(PollEvent.IN, FILL_WAIT_MS));
      readable = true;
    } finally {
      device.finish(readable ? filled : 0);
    }
  }
}

/** Writes every buffer to the descriptor. */
export function loadDescriptor(device: LoadDevice, { fd }: DescriptorState): void {
  using target = new WriteTarget(fd);
  for (let next = device.next(); next !== undefined; next = device.next()) {
    target.write(next.address, next.bytes.byteLength, device);
  }
}

interface Abortable {
  throwIfAborted(): void;
}

/** Waits for a descriptor, in steps short enough to notice an abort. */
class Readiness {
  readonly #poll = new Arena(8); // struct pollfd: 0 fd, 4 events, 6 revents

  constructor(fd: number) {
    this.#poll.u32[0] = fd;
  }

  wait(events: number, session: Abortable): void {
    do session.throwIfAborted();
    while (!this.within(events, WAIT_TICK_MS));
  }

  /** Whether the descriptor is ready within `limitMs`; errors and hang-ups count as ready. */
  within(events: number, limitMs: number): boolean {
    this.#poll.u32[1] = events;
    const count = poll(this.#poll.address, 1, limitMs);
    return count > 0;
  }
}

class WriteTarget implements Disposable {
  readonly #fd: number;
  readonly #owned: boolean;
  readonly #stepBytes: number;
  readonly #ready: Readiness;

  constructor(fd: number) {
    const { isPipe, isRegular } = factsOfDescriptor("Cannot write device state", fd);
    this.#owned = isPipe;
    this.#fd = this.#owned
      ? unwrap(
          "Cannot open the pipe again",
          openFile(`/proc/self/fd/${fd}`, OpenFlag.WRONLY | OpenFlag.NONBLOCK | OpenFlag.CLOEXEC),
        )
      : fd;
    this.#stepBytes = this.#owned || isRegular ? Infinity : BLOCKING_WRITE_BYTES;
    this.#ready = new Readiness(this.#fd);
  }

  write(address: number, bytes: number, device: Abortable): void {
    for (let done = 0; done < bytes;) {
      this.#ready.wait(PollEvent.OUT, device);
      const part = Math.min(bytes - done, this.#stepBytes);
      const put = writeFd(this.#fd, address + done, part);
      if (put === -Errno.EINTR || put === -Errno.EAGAIN) continue;
      done += unwrap("Cannot write device state", put);
    }
  }

  [Symbol.dispose](): void {
    if (this.#owned) close(this.#fd);
  }
}
