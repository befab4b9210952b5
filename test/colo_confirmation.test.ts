/** A secondary gives no epoch whose memory is not complete, and answers no checkpoint that is not. */
import { describe, expect, test } from "bun:test";
import { blobWith } from "../lib/colo/device_state_blob.ts";
import { ColoMessage } from "../lib/wire/colo_message.ts";
import { MainStreamWriter } from "../lib/wire/main_stream_writer.ts";
import {
  connectPrimary,
  listenSecondary,
  PageBitmap,
  RamBlock,
  type ColoSecondary,
} from "../mod.ts";
import type { MultifdError } from "../mod.ts";
import { written } from "./kit/byte_ends.ts";
import { rejectionOf } from "./kit/errors.ts";
import { testTimeouts } from "./kit/limits.ts";
import { differingPages, fillBlock } from "./kit/page_content.ts";
import { handshake, mainStream, packet, RawSource, syncPacket } from "./kit/raw_peer.ts";
import { until } from "./kit/threads.ts";

const join = (...parts: readonly Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(parts));
const hex = (...words: readonly number[]): string =>
  words.map((word) => word.toString(16).padStart(8, "0")).join("");

/** PONG, SHUT 0 and the word that the copy is complete. */
const READY = `000200040000000100010004${hex(0, ColoMessage.CHECKPOINT_READY)}`;
/** How long a secondary waits for the SYNC of a marker. */
const STALL_MS = 4000;

const word = (message: number): Uint8Array => written((out) => out.u32(message));

/** The RAM of a checkpoint on the main connection. */
function ram(marker: boolean): Uint8Array {
  return written((out) => {
    const writer = new MainStreamWriter(out);
    writer.beginRamSection("end");
    if (marker) writer.syncMarker();
    writer.endRamSection();
    writer.endMark();
  });
}

/** The device state, with which a checkpoint ends. */
const state = written((out) => {
  const parts = blobWith(Uint8Array.of(1, 2, 3));
  out.u32(ColoMessage.VMSTATE_SIZE);
  out.u64(parts.reduce((sum, { byteLength }) => sum + byteLength, 0));
  for (const part of parts) out.bytes(part);
});

/** A primary by hand, with one channel. */
class RawPrimary implements Disposable {
  readonly #peer: RawSource;
  #main = 0;
  #channel = 0;

  constructor(secondary: ColoSecondary) {
    this.#peer = new RawSource(secondary.endpoint);
  }

  /** Migrates pages 1 and 2, with `rest` behind the last SYNC of the channel. */
  async migrate(rest: Uint8Array = new Uint8Array(0)): Promise<void> {
    const setup = mainStream("setup");
    this.#main = await this.#peer.open(setup);
    const start = join(handshake(0), syncPacket(), packet(), syncPacket());
    this.#channel = await this.#peer.open(join(start, rest));
    // What the channel has is there before the main stream ends.
    await Bun.sleep(100);
    this.#peer.write(this.#main, mainStream("whole").subarray(setup.byteLength));
  }

  /** Sends a checkpoint up to its device state. */
  async begin(channel: Uint8Array, marker = true): Promise<void> {
    await until("the copy is complete", () => this.heard === READY);
    this.#peer.write(this.#main, word(ColoMessage.CHECKPOINT_REQUEST));
    await until("it stands still", () => this.heard === READY + hex(ColoMessage.CHECKPOINT_REPLY));
    this.#peer.write(this.#channel, channel);
    this.#peer.write(this.#main, join(word(ColoMessage.VMSTATE_SEND), ram(marker)));
    await Bun.sleep(100);
  }

  /** Sends the device state. */
  finish(): void {
    this.#peer.write(this.#main, state);
  }

  /** Everything the secondary has said on the main connection. */
  get heard(): string {
    return this.#peer.answers[this.#main]?.toString("hex") ?? "";
  }

  [Symbol.dispose](): void {
    this.#peer[Symbol.dispose]();
  }
}

function listenRaw(): Promise<ColoSecondary> {
  const timeouts = { ...testTimeouts, stallMs: STALL_MS };
  return listenSecondary({ endpoint: "127.0.0.1:0", channels: 1, timeouts });
}

const three = packet({ normal: [3] });

/** What a channel has in a checkpoint, whether there is a marker, and the code of the error. */
const broken: readonly (readonly [string, Uint8Array, boolean, string])[] = [
  [
    "half a packet behind its SYNC",
    join(three, syncPacket(), three.subarray(0, 900)),
    true,
    "LEFT",
  ],
  ["half a header behind its SYNC", join(syncPacket(), three.subarray(0, 7)), true, "LEFT"],
  ["a packet behind its SYNC", join(syncPacket(), three), true, "LEFT"],
  ["a SYNC more than markers", join(three, syncPacket(), syncPacket()), true, "LEFT"],
  ["a SYNC without marker", join(three, syncPacket()), false, "LEFT"],
  ["pages that no SYNC covers", three, false, "LEFT"],
  ["half a packet and no marker", three.subarray(0, 900), false, "LEFT"],
  ["no SYNC for a marker", three, true, "SYNC"],
  ["half a packet in place of a SYNC", three.subarray(0, 900), true, "STALL"],
];

const CODES: Readonly<Record<string, string>> = {
  LEFT: "ERR_MULTIFD_PACKET_LEFT_OVER",
  SYNC: "ERR_MULTIFD_TIMEOUT_SYNC",
  // The channel and whoever waits for it have the same limit.
  STALL: "ERR_MULTIFD_TIMEOUT",
};

describe("listenSecondary: a checkpoint is not taken", () => {
  for (const [what, channel, marker, code] of broken) {
    test(`when a channel has ${what}`, async () => {
      await using secondary = await listenRaw();
      using primary = new RawPrimary(secondary);
      await primary.migrate();
      await primary.begin(channel, marker);
      primary.finish();
      const left = await secondary.ended();
      expect(left).toMatchObject({ epoch: 0, pending: { epoch: 1, applied: "no" } });
      expect((left.cause as MultifdError).code).toStartWith(CODES[code]!);
      expect(primary.heard).toBe(READY + hex(ColoMessage.CHECKPOINT_REPLY));
      const [block] = secondary.blocks;
      expect(block!.view(3 * 4096, 4096).every((byte) => byte === 0)).toBe(true);
      expect(block!.view(2 * 4096, 4096).every((byte) => byte === 2)).toBe(true);
    });
  }

  test("and the same one with nothing wrong is", async () => {
    await using secondary = await listenRaw();
    using primary = new RawPrimary(secondary);
    await primary.migrate();
    await primary.begin(join(three, syncPacket()));
    expect(secondary.epoch).toBe(0);
    primary.finish();
    const { CHECKPOINT_REPLY, VMSTATE_RECEIVED, VMSTATE_LOADED } = ColoMessage;
    const done = READY + hex(CHECKPOINT_REPLY, VMSTATE_RECEIVED, VMSTATE_LOADED);
    await until("it is in place", () => primary.heard === done);
    expect(await secondary.takeOver()).toMatchObject({ epoch: 1, cause: undefined });
    const page = secondary.blocks[0]!.view(3 * 4096, 4096);
    expect(page.every((byte) => byte === 3)).toBe(true);
  });
});

describe("listenSecondary: there is no copy", () => {
  for (const [what, rest] of [
    ["half a packet", three.subarray(0, 900)],
    ["a packet", three],
    ["a SYNC", syncPacket()],
  ] as const) {
    test(`when ${what} is left on a channel after the migration`, async () => {
      await using secondary = await listenRaw();
      using primary = new RawPrimary(secondary);
      const failure = rejectionOf(secondary.ended());
      await primary.migrate(rest);
      expect((await failure).code).toBe(CODES["LEFT"]!);
      expect(secondary.epoch).toBe(-1);
      expect(primary.heard).not.toContain("0001000400000000");
    });
  }
});

describe("a primary that synchronises after each section", () => {
  for (const [compression, pages] of [
    ["none", 2],
    ["none", 2048],
    ["zstd", 16_384],
  ] as const) {
    test(`is followed by a secondary that was told nothing of it: ${compression}, ${pages} pages`, async () => {
      const block = RamBlock.allocate("pc.ram", pages * 4096);
      const both = { compression, timeouts: testTimeouts };
      await using secondary = await listenSecondary({ endpoint: "127.0.0.1:0", ...both });
      await using primary = await connectPrimary({
        ...both,
        endpoint: secondary.endpoint,
        blocks: [block],
        syncMode: "section",
      });
      await primary.start();
      for (let epoch = 1; epoch <= 3; epoch++) {
        fillBlock(block, epoch);
        const dirty = new PageBitmap(block.pages);
        dirty.setRange(0, block.pages);
        await primary.checkpoint(dirty);
        expect(secondary.epoch).toBe(epoch);
        expect(differingPages(block, secondary.blocks[0]!)).toEqual([]);
      }
    });
  }
});
