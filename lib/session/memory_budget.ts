/**
 * One budget for all memory that a peer can make this side hold: RAM blocks and their caches, windows
 * of the codec, queues of devices, and what is kept of a guest beside its RAM. What has to be promised
 * before the peer is known (windows, queues) comes off first; the rest is taken as it is asked for.
 *
 * Buffers whose size no peer decides (packets, tables, a few MiB a channel) do not count.
 *
 * @module
 */
import type { CompressionMethod } from "../codec/methods.ts";
import { LimitError } from "../errors.ts";
import {
  CHANNELS_MAX,
  HELD_BESIDE_RAM_BYTES,
  ZSTD_WINDOW_BITS_MAX,
  ZSTD_WINDOW_BITS_MIN,
} from "../limits.ts";

/** What libzstd has beside a window: two blocks and room to copy. */
const WINDOW_EXTRA_BYTES = 524_288;

/** What decides how much must be promised from the start. */
interface Promised {
  /** The whole budget in bytes; undefined for the default. */
  readonly heldBytesMax: number | undefined;
  readonly method: CompressionMethod;
  /** Undefined: as many as connect. */
  readonly channels: number | undefined;
  /** Most bytes that wait for devices, all queues together, or what else is kept of a stream. */
  readonly queueBytes: number;
}

/** How a budget is divided. */
interface MemoryPlan {
  /** Largest window of a channel as a power of two. */
  readonly windowBits: number;
  /** What is left for the rest; undefined without a budget of the caller's. */
  readonly leftBytes: number | undefined;
}

/**
 * Divides a budget. Windows get half of it at most, and are made smaller than QEMU's highest level
 * needs only where that is not enough.
 *
 * @throws {RangeError} for a budget that cannot work.
 */
export function planMemory(promised: Promised): MemoryPlan {
  const { heldBytesMax, method, queueBytes, channels = CHANNELS_MAX } = promised;
  if (heldBytesMax === undefined) return { windowBits: ZSTD_WINDOW_BITS_MAX, leftBytes: undefined };
  if (!Number.isSafeInteger(heldBytesMax) || heldBytesMax <= 0) {
    throw new RangeError(`Cannot hold at most ${heldBytesMax} bytes: must be a positive number`);
  }
  const codec = method === "zstd" ? channels : 0;
  const least = queueBytes + 2 * codec * (2 ** ZSTD_WINDOW_BITS_MIN + WINDOW_EXTRA_BYTES);
  if (heldBytesMax <= least) {
    throw new RangeError(
      `Cannot hold at most ${heldBytesMax} bytes: heldBytesMax must be above ${least} for ` +
        `${codec} windows of zstd and the ${queueBytes} bytes that are promised besides`,
    );
  }
  const left = heldBytesMax - queueBytes;
  if (codec === 0) return { windowBits: ZSTD_WINDOW_BITS_MAX, leftBytes: left };
  const share = left / 2 / codec - WINDOW_EXTRA_BYTES;
  const windowBits = Math.min(ZSTD_WINDOW_BITS_MAX, Math.floor(Math.log2(share)));
  return { windowBits, leftBytes: left - codec * (2 ** windowBits + WINDOW_EXTRA_BYTES) };
}

/** What is left of a budget. Used by the thread that reads the main connection. */
export class MemoryBudget {
  #left: number;

  /**
   * @param leftBytes Of {@linkcode MemoryPlan}.
   * @param ramBytes RAM that the default budget has room for.
   */
  constructor(leftBytes: number | undefined, ramBytes: number) {
    this.#left = leftBytes ?? ramBytes + HELD_BESIDE_RAM_BYTES;
  }

  /** Bytes that may still be taken. */
  get left(): number {
    return this.#left;
  }

  /**
   * Takes `bytes` for `what`.
   *
   * @throws {LimitError} when there are not so many left.
   */
  take(bytes: number, what: string): void {
    if (bytes > this.#left) {
      throw new LimitError(
        "ERR_MULTIFD_LIMIT_HELD",
        `Cannot hold ${what}: it takes ${bytes} bytes, ${this.#left} are left of what option heldBytesMax allows`,
      );
    }
    this.#left -= bytes;
  }
}
