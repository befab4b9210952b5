import { describe, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import {
  ChannelError,
  capabilities,
  connectPrimary,
  listenSecondary,
  PageBitmap,
  RamBlock,
  trackDirtyPages,
  type CompressionMethod,
  type ColoPrimary,
  type ColoSecondary,
  type PrimaryOptions,
  type SecondaryOptions,
} from "../mod.ts";
import { ColoMessage } from "../lib/wire/colo_message.ts";
import { MULTIFD_MAGIC } from "../lib/wire/handshake.ts";
import { ramPacketBytes } from "../lib/wire/packet.ts";
import { CutProxy } from "./kit/cut_proxy.ts";
import { testTimeouts } from "./kit/limits.ts";
import { RandomWriters } from "./kit/random_writers.ts";
import { TemporaryFolder } from "./kit/temporary_folder.ts";

const MIB = 1_048_576;

/** Both sides of a pair in this process, with memory that nothing else uses. */
interface Pair extends AsyncDisposable {
  readonly primary: ColoPrimary;
  readonly secondary: ColoSecondary;
  readonly proxy: CutProxy;
}

interface PairOptions {
  readonly blocks: readonly RamBlock[];
  readonly source?: Partial<PrimaryOptions>;
  readonly destination?: Partial<SecondaryOptions>;
  readonly compression?: CompressionMethod;
}

async function makePair(options: PairOptions): Promise<Pair> {
  const { blocks, compression = "none", source, destination } = options;
  const common = { channels: 3, compression, timeouts: testTimeouts };
  await using stack = new AsyncDisposableStack();
  const secondary = stack.use(
    await listenSecondary({
      ...common,
      endpoint: "127.0.0.1:0",
      pageSize: blocks[0]!.pageSize,
      ...destination,
    }),
  );
  const proxy = stack.use(new CutProxy(secondary.endpoint));
  const primary = stack.use(
    await connectPrimary({ ...common, endpoint: proxy.endpoint, blocks, ...source }),
  );
  const owned = stack.move();
  return { primary, secondary, proxy, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

/** All of a block that is one piece. */
function bytesOf(block: RamBlock): Uint8Array {
  return block.view(0, block.bytes);
}

function isEqual(left: RamBlock, right: RamBlock): boolean {
  return Buffer.concat([...left.views()]).equals(Buffer.concat([...right.views()]));
}

function allDirty(block: RamBlock): PageBitmap {
  const dirty = new PageBitmap(block.pages);
  dirty.setRange(0, block.pages);
  return dirty;
}

/** Why a call failed. `expect().rejects` would hold up the event loop that the pair needs. */
function failureOf(call: Promise<unknown>): Promise<unknown> {
  return call.then(
    () => undefined,
    (error: unknown) => error,
  );
}

/** Where the message with the length of the device state starts in a piece of the main stream. */
function stateSizeAt(chunk: Buffer): number {
  const name = chunk.indexOf("multifd/state");
  const at = name - 18; // the word, a u64 length, then a section's type, id and name length
  return name >= 0 && chunk.readUInt32BE(at) === ColoMessage.VMSTATE_SIZE ? at : -1;
}

/** Waits for the next checkpoint to be in place. */
function nextCheckpoint(secondary: ColoSecondary): Promise<number> {
  const { promise, resolve } = Promise.withResolvers<number>();
  secondary.on("checkpoint", ({ epoch }) => resolve(epoch));
  return promise;
}

describe("connectPrimary: checkpoints", () => {
  for (const { method: compression, available } of capabilities().methods) {
    for (const zeroPageDetection of ["multifd", "legacy"] as const) {
      if (zeroPageDetection === "legacy" && compression !== "none") continue;
      test.skipIf(!available)(
        `colo/tcp/${compression}/${zeroPageDetection}: memory, cache and state are the primary's after each one`,
        async () => {
          await using writers = new RandomWriters({ bytes: 2 * MIB, clears: true });
          const block = RamBlock.fromBuffer("pc.ram", writers.buffer);
          await using pair = await makePair({
            blocks: [block],
            compression,
            source: { zeroPageDetection },
          });
          const { primary, secondary } = pair;
          using tracker = await trackDirtyPages(block);
          await writers.run();
          await primary.start({ rounds: 2 });
          await secondary.ready();
          expect([primary.epoch, secondary.epoch]).toEqual([0, 0]);
          const states: string[] = [];
          secondary.on("checkpoint", ({ deviceState }) => {
            states.push(Buffer.from(deviceState).toString());
          });
          for (let epoch = 1; epoch <= 8; epoch++) {
            await Bun.sleep(2);
            await writers.pause();
            const dirty = new PageBitmap(block.pages);
            await tracker.fetch(dirty);
            const pages = dirty.count();
            expect(pages).toBeGreaterThan(0);
            const record = await primary.checkpoint(dirty, Buffer.from(`state ${epoch}`));
            expect(record).toMatchObject({ epoch, pages, stateBytes: 7 });
            expect(record.pauseMs).toBeGreaterThan(0);
            expect(isEqual(block, secondary.blocks[0]!)).toBe(true);
            expect(isEqual(secondary.caches[0]!, secondary.blocks[0]!)).toBe(true);
            await writers.run();
          }
          expect(states).toEqual(Array.from({ length: 8 }, (_, index) => `state ${index + 1}`));
          const expected = { epoch: 8, pending: undefined, cause: undefined };
          expect(await primary.takeOver()).toEqual(expected);
          expect(await secondary.ended()).toMatchObject(expected);
          expect(primary.summary().checkpoints).toBe(8);
          expect(secondary.summary().pages.median).toBe(primary.summary().pages.median);
        },
      );
    }
  }

  test("several blocks, pages of 64 KiB, given memory and sync after each section", async () => {
    const pageSize = 65_536;
    const blocks = ["pc.ram", "vga.vram"].map((name) =>
      RamBlock.allocate(name, 8 * pageSize, { pageSize }),
    );
    // In pieces of two pages, so that block, cache and memory differ in their layout.
    const copies = blocks.map(({ idstr }) => {
      const pieces = Array.from({ length: 4 }, () => new SharedArrayBuffer(2 * pageSize));
      return RamBlock.fromBuffer(idstr, pieces, { pageSize });
    });
    await using pair = await makePair({
      blocks,
      compression: "zstd",
      source: { syncMode: "section" },
      destination: { blocks: copies },
    });
    const { primary, secondary } = pair;
    bytesOf(blocks[1]!).fill(7);
    await primary.start();
    expect(secondary.blocks).toEqual(copies);
    const dirty = blocks.map(({ pages }) => new PageBitmap(pages));
    blocks[0]!.view(3 * pageSize, pageSize).fill(9);
    dirty[0]!.set(3);
    blocks[1]!.view(5 * pageSize, pageSize).fill(0);
    dirty[1]!.set(5);
    expect((await primary.checkpoint(dirty)).pages).toBe(2);
    for (const [index, block] of blocks.entries()) {
      expect(isEqual(block, copies[index]!)).toBe(true);
    }
    expect(dirty[0]!.count() + dirty[1]!.count()).toBe(0);
    expect(await failureOf(primary.checkpoint(dirty[0]!))).toBeInstanceOf(RangeError);
  });

  test("a page that first arrives as zero in a checkpoint clears memory that was not zero", async () => {
    const block = RamBlock.allocate("pc.ram", 16 * 4096);
    const copy = RamBlock.fromBuffer("pc.ram", new SharedArrayBuffer(block.bytes));
    bytesOf(copy).fill(5); // not vouched for as zero
    await using pair = await makePair({ blocks: [block], destination: { blocks: [copy] } });
    await pair.primary.start();
    expect(isEqual(block, copy)).toBe(true);
    block.view(4096, 4096).fill(3);
    await pair.primary.checkpoint(allDirty(block));
    expect(isEqual(block, copy)).toBe(true);
    block.view(4096, 4096).fill(0);
    await pair.primary.checkpoint(allDirty(block));
    expect(isEqual(block, copy)).toBe(true);
  });

  test("memory does not change before all of a checkpoint is here", async () => {
    const block = RamBlock.allocate("pc.ram", MIB);
    await using pair = await makePair({ blocks: [block] });
    const { primary, secondary, proxy } = pair;
    await primary.start();
    bytesOf(block).fill(1);
    await primary.checkpoint(allDirty(block), Buffer.alloc(3));
    bytesOf(block).fill(2);
    // The device state ends the checkpoint; its last piece is held back while the pages pass.
    const held = Promise.withResolvers<void>();
    proxy.filter = (chunk, from, connection) => {
      const at = connection === "main" && from === "source" ? stateSizeAt(chunk) : -1;
      if (at < 0) return chunk;
      held.resolve();
      return chunk.subarray(0, at);
    };
    const lost = failureOf(primary.checkpoint(allDirty(block)));
    await held.promise;
    for (const deadline = Date.now() + 5000; Date.now() < deadline;) {
      if (bytesOf(secondary.caches[0]!).at(-1) === 2) break;
      await Bun.sleep(5);
    }
    expect(bytesOf(secondary.caches[0]!).every((byte) => byte === 2)).toBe(true);
    expect(bytesOf(secondary.blocks[0]!).every((byte) => byte === 1)).toBe(true);
    const left = await secondary.takeOver();
    expect(left).toMatchObject({
      epoch: 1,
      pending: { epoch: 2, applied: "no" },
      cause: undefined,
    });
    expect(bytesOf(secondary.blocks[0]!).every((byte) => byte === 1)).toBe(true);
    expect(await lost).toBeInstanceOf(Error);
    expect(primary.failOver).toMatchObject({
      epoch: 1,
      pending: { epoch: 2, applied: "unknown" },
    });
  });

  for (const compression of ["none", "zstd"] as const) {
    test(`colo/tcp/${compression}/state: device state over the channels arrives as it was, of any length`, async () => {
      const block = RamBlock.allocate("pc.ram", MIB);
      await using pair = await makePair({
        blocks: [block],
        compression,
        source: { stateOverChannels: true, deviceStateCompressed: true },
      });
      const { primary, secondary } = pair;
      await primary.start();
      const states: Uint8Array[] = [];
      secondary.on("checkpoint", ({ deviceState }) => void states.push(deviceState));
      for (const [index, bytes] of [0, 1, MIB, 5 * MIB + 3, 7].entries()) {
        const state = new Uint8Array(bytes).map((_, at) => (at * 31 + at / 4096 + index) & 255);
        block.view(4096 * index, 4096).fill(index + 1);
        const record = await primary.checkpoint(allDirty(block), state);
        expect(record.stateBytes).toBe(bytes);
        expect(Buffer.compare(states[index]!, state)).toBe(0);
        expect(isEqual(block, secondary.blocks[0]!)).toBe(true);
      }
    });
  }

  test("device state over channels that compress has to be asked for", async () => {
    const blocks = [RamBlock.allocate("pc.ram", MIB)];
    const refused = await failureOf(
      connectPrimary({
        endpoint: "127.0.0.1:1",
        blocks,
        compression: "zlib",
        stateOverChannels: true,
      }),
    );
    expect(refused).toBeInstanceOf(TypeError);
  });

  for (const memory of ["of this process", "that is mapped"] as const) {
    test(`what the secondary itself wrote to memory ${memory} is taken back, if asked`, async () => {
      const block = RamBlock.allocate("pc.ram", MIB);
      using folder = new TemporaryFolder();
      const path = folder.file("copy");
      await Bun.write(path, new Uint8Array(MIB));
      // The kernel's write protection does not cover mapped memory: it is compared with the cache.
      using copy =
        memory === "that is mapped"
          ? RamBlock.map("pc.ram", path, { writable: true })
          : RamBlock.allocate("pc.ram", MIB);
      await Bun.file(path).delete();
      await using pair = await makePair({
        blocks: [block],
        destination: { revertLocalWrites: true, blocks: [copy] },
      });
      const { primary, secondary } = pair;
      await primary.start();
      for (let epoch = 1; epoch <= 3; epoch++) {
        copy.view(40_960, 8192).fill(epoch);
        block.view(4096 * epoch, 4096).fill(epoch);
        const dirty = new PageBitmap(block.pages);
        dirty.set(epoch);
        await primary.checkpoint(dirty);
        expect(isEqual(block, copy)).toBe(true);
        // Applying is not taken for writing.
        expect(secondary.summary().pages.p99).toBeLessThanOrEqual(3);
      }
      await secondary.takeOver();
    });
  }

  test("periodic checkpoints follow the delay, and end with the primary", async () => {
    await using writers = new RandomWriters({ bytes: MIB });
    const block = RamBlock.fromBuffer("pc.ram", writers.buffer);
    await using pair = await makePair({ blocks: [block] });
    const { primary, secondary } = pair;
    using tracker = await trackDirtyPages(block);
    await writers.run();
    await primary.start();
    const order: string[] = [];
    secondary.on("request", () => void order.push("request"));
    const looped = primary.run({
      delayMs: 5,
      capture: async () => {
        order.push("capture");
        await writers.pause();
        const dirty = new PageBitmap(block.pages);
        await tracker.fetch(dirty);
        return { dirty };
      },
      resume: async () => {
        order.push("resume");
        await writers.run();
      },
      onCheckpoint: ({ epoch }) => {
        order.push("done");
        if (epoch === 4) void primary.takeOver();
      },
    });
    const left = await looped;
    expect(left).toMatchObject({ epoch: 4, cause: undefined });
    expect(order).toEqual(
      Array.from({ length: 4 }, () => ["request", "capture", "done", "resume"]).flat(),
    );
    expect((await secondary.ended()).epoch).toBe(4);
  });
});

describe("connectPrimary: use", () => {
  test("steps out of order are refused, and the pair goes on", async () => {
    const block = RamBlock.allocate("pc.ram", MIB);
    await using pair = await makePair({ blocks: [block] });
    const { primary } = pair;
    expect(await failureOf(primary.checkpoint(allDirty(block)))).toBeInstanceOf(RangeError);
    await primary.start();
    expect(await failureOf(primary.start())).toBeInstanceOf(RangeError);
    const first = primary.checkpoint(allDirty(block));
    expect(await failureOf(primary.checkpoint(allDirty(block)))).toBeInstanceOf(RangeError);
    const loop = { delayMs: testTimeouts.idleMs, capture: () => ({ dirty: allDirty(block) }) };
    expect(await failureOf(primary.run(loop))).toBeInstanceOf(RangeError);
    expect((await first).epoch).toBe(1);
    expect((await primary.checkpoint(allDirty(block))).epoch).toBe(2);
  });

  test("a capture that fails ends the pair at the last checkpoint", async () => {
    const block = RamBlock.allocate("pc.ram", MIB);
    await using pair = await makePair({ blocks: [block] });
    const { primary, secondary } = pair;
    await primary.start();
    let resumed = 0;
    const failure = await failureOf(
      primary.run({
        delayMs: 0,
        capture: () => {
          if (primary.epoch === 2) throw new RangeError("cannot stop the writers");
          return { dirty: allDirty(block) };
        },
        resume: () => void resumed++,
      }),
    );
    expect((failure as Error).message).toBe("cannot stop the writers");
    expect(resumed).toBe(3);
    expect(await secondary.ended()).toMatchObject({
      epoch: 2,
      pending: { epoch: 3, applied: "no" },
    });
  });

  test("a signal ends the pair and is named as the cause", async () => {
    const block = RamBlock.allocate("pc.ram", MIB);
    const controller = new AbortController();
    await using pair = await makePair({
      blocks: [block],
      destination: { signal: controller.signal },
    });
    await pair.primary.start();
    await pair.primary.checkpoint(allDirty(block));
    controller.abort(new Error("enough"));
    const left = await pair.secondary.ended();
    expect(left).toMatchObject({ epoch: 1, cause: { code: "ERR_MULTIFD_CANCELLED" } });
  });

  test("no descriptor and no thread is left behind", async () => {
    const count = (kind: string): number => readdirSync(`/proc/self/${kind}`).length;
    const block = RamBlock.allocate("pc.ram", MIB);
    const makeOne = async (): Promise<void> => {
      await using pair = await makePair({ blocks: [block] });
      using tracker = await trackDirtyPages(block);
      using compare = await trackDirtyPages(block, { method: "compare", threads: 2 });
      await pair.primary.start();
      const dirty = allDirty(block);
      await compare.fetch(dirty);
      await pair.primary.checkpoint(dirty);
      await tracker.fetch(dirty);
      await pair.secondary.takeOver();
    };
    await makeOne();
    const [descriptors, threads] = [count("fd"), count("task")];
    for (let turn = 0; turn < 3; turn++) await makeOne();
    // Threads end a moment after they have said so.
    for (let wait = 0; wait < 100 && count("task") > threads; wait++) await Bun.sleep(50);
    expect(count("fd")).toBeLessThanOrEqual(descriptors);
    expect(count("task")).toBeLessThanOrEqual(threads + 2);
  });
});

describe("listenSecondary: capture", () => {
  test("the state of a program is refused by its name, and the last epoch stays", async () => {
    const block = RamBlock.allocate("pc.ram", MIB);
    await using pair = await makePair({ blocks: [block], destination: { capture: true } });
    const { primary, secondary } = pair;
    await primary.start();
    const lost = await failureOf(primary.checkpoint(allDirty(block)));
    const left = await secondary.ended();
    expect(lost).toMatchObject({
      code: "ERR_MULTIFD_PEER",
      reason: { message: left.cause?.message },
    });
    expect(left).toMatchObject({ epoch: 0, cause: { code: "ERR_MULTIFD_STREAM_COLO" } });
    expect(left.cause?.message).toContain("multifd/state");
    expect(left.recording?.blocks).toBe(secondary.blocks);
  });

  test("without it there is no recording", async () => {
    const block = RamBlock.allocate("pc.ram", MIB);
    await using pair = await makePair({ blocks: [block] });
    await pair.primary.start();
    expect((await pair.secondary.takeOver()).recording).toBeUndefined();
  });

  for (const returnPath of [true, false]) {
    const how = returnPath ? "a return path" : "no return path";
    test(`the end of the migration is recognised with ${how}`, async () => {
      const block = RamBlock.allocate("pc.ram", MIB);
      bytesOf(block).fill(5);
      await using pair = await makePair({
        blocks: [block],
        source: { returnPath, machine: "pc" },
        destination: { capture: true },
      });
      await pair.primary.start();
      const { recording } = await pair.secondary.takeOver();
      expect(recording?.state.machine).toBe("pc");
      expect(isEqual(block, recording!.blocks[0]!)).toBe(true);
    });
  }
});

describe("listenSecondary: fail-over", () => {
  test("the secondary takes over while it stands still for a checkpoint", async () => {
    const block = RamBlock.allocate("pc.ram", MIB);
    await using pair = await makePair({ blocks: [block] });
    const { primary, secondary } = pair;
    await primary.start();
    bytesOf(block).fill(1);
    await primary.checkpoint(allDirty(block));
    bytesOf(block).fill(2);
    let left: Promise<unknown> | undefined;
    secondary.on("request", () => {
      left = secondary.takeOver();
    });
    expect(await failureOf(primary.checkpoint(allDirty(block)))).toBeInstanceOf(Error);
    expect(await left!).toMatchObject({ epoch: 1, pending: { epoch: 2, applied: "no" } });
    expect(bytesOf(secondary.blocks[0]!).every((byte) => byte === 1)).toBe(true);
    expect(primary.failOver).toMatchObject({ epoch: 1, pending: { epoch: 2, applied: "no" } });
  });

  test("the primary takes over while the secondary stands still for a checkpoint", async () => {
    const block = RamBlock.allocate("pc.ram", MIB);
    await using pair = await makePair({ blocks: [block] });
    const { primary, secondary } = pair;
    await primary.start();
    const left = await primary.run({
      delayMs: 0,
      capture: () => {
        bytesOf(block).fill(primary.epoch + 1);
        // The fourth is captured and not sent any more.
        if (primary.epoch === 3) void primary.takeOver();
        return { dirty: allDirty(block) };
      },
    });
    expect(left).toMatchObject({ epoch: 3, pending: { epoch: 4, applied: "no" } });
    expect(await secondary.ended()).toMatchObject({
      epoch: 3,
      pending: { epoch: 4, applied: "no" },
    });
    expect(bytesOf(secondary.blocks[0]!).every((byte) => byte === 3)).toBe(true);
    expect(bytesOf(block).every((byte) => byte === 4)).toBe(true);
  });

  test("a connection that is lost while a checkpoint is applied leaves all of it in place", async () => {
    const block = RamBlock.allocate("pc.ram", 32 * MIB);
    await using pair = await makePair({ blocks: [block] });
    const { primary, secondary, proxy } = pair;
    await primary.start();
    bytesOf(block).fill(1);
    proxy.filter = (chunk, from, connection) => {
      const isReceived =
        connection === "main" &&
        from === "destination" &&
        chunk.length >= 4 &&
        chunk.readUInt32BE(0) === ColoMessage.VMSTATE_RECEIVED;
      return isReceived ? undefined : chunk;
    };
    const applied = nextCheckpoint(secondary);
    expect(await failureOf(primary.checkpoint(allDirty(block), Buffer.of(1)))).toBeInstanceOf(
      ChannelError,
    );
    expect(primary.failOver).toMatchObject({
      epoch: 0,
      pending: { epoch: 1, applied: "unknown" },
    });
    // Its device state was handed over too, although the pair was gone by then.
    expect(await applied).toBe(1);
    const left = await secondary.ended();
    expect(left).toMatchObject({ epoch: 1, pending: undefined });
    expect(bytesOf(secondary.blocks[0]!).every((byte) => byte === 1)).toBe(true);
  });

  for (const { method: compression, available } of capabilities().methods) {
    test.skipIf(!available)(
      `colo/tcp/${compression}: a corrupt packet inside a checkpoint leaves memory untouched`,
      async () => {
        const block = RamBlock.allocate("pc.ram", 4 * MIB);
        await using pair = await makePair({ blocks: [block], compression });
        const { primary, secondary, proxy } = pair;
        await primary.start();
        bytesOf(block).fill(1);
        await primary.checkpoint(allDirty(block));
        const words = new Uint32Array(block.segments[0]!.buffer!);
        for (let index = 0; index < words.length; index++) words[index] = Math.imul(index, 40_503);
        let armed = true;
        proxy.filter = (chunk, from, connection) => {
          if (!armed || connection !== "channel" || from !== "source") return chunk;
          // Some channels only synchronise; in a packet with pages the payload is behind the header.
          const at = ramPacketBytes(block.pageSize);
          if (chunk.length < at + 512 || chunk.readUInt32BE(0) !== MULTIFD_MAGIC) return chunk;
          armed = false;
          chunk.fill(0xa5, at, at + 512);
          return chunk;
        };
        const outcome = await primary.checkpoint(allDirty(block)).then(
          () => "applied" as const,
          () => "failed" as const,
        );
        // Method none has nothing to check the content of a page with, only headers.
        if (compression === "none" && outcome === "applied") return;
        expect(outcome).toBe("failed");
        const left = await secondary.ended();
        expect(left).toMatchObject({ epoch: 1, pending: { epoch: 2, applied: "no" } });
        expect(left.cause!.code).toMatch(/^ERR_MULTIFD_(CODEC|PACKET|CHANNEL)/);
        expect(bytesOf(secondary.blocks[0]!).every((byte) => byte === 1)).toBe(true);
      },
    );
  }

  test("a corrupt header inside a checkpoint is named, and memory is untouched", async () => {
    const block = RamBlock.allocate("pc.ram", 4 * MIB);
    await using pair = await makePair({ blocks: [block] });
    const { primary, secondary, proxy } = pair;
    await primary.start();
    let armed = true;
    proxy.filter = (chunk, from, connection) => {
      if (armed && connection === "channel" && from === "source") {
        armed = false;
        chunk.writeUInt32BE(0xdead_beef, 0);
      }
      return chunk;
    };
    bytesOf(block).fill(1);
    expect(await failureOf(primary.checkpoint(allDirty(block)))).toBeInstanceOf(Error);
    const left = await secondary.ended();
    expect(left).toMatchObject({ epoch: 0, cause: { code: "ERR_MULTIFD_PACKET_MAGIC" } });
    expect(bytesOf(secondary.blocks[0]!).every((byte) => byte === 0)).toBe(true);
  });

  test("a word out of turn ends the pair with the last checkpoint in place", async () => {
    const block = RamBlock.allocate("pc.ram", MIB);
    await using pair = await makePair({ blocks: [block] });
    const { primary, secondary, proxy } = pair;
    await primary.start();
    proxy.filter = (chunk, from, connection) => {
      if (connection === "main" && from === "source") chunk.writeUInt32BE(7, 0);
      return chunk;
    };
    expect(await failureOf(primary.checkpoint(allDirty(block)))).toBeInstanceOf(Error);
    expect(await secondary.ended()).toMatchObject({
      epoch: 0,
      cause: { code: "ERR_MULTIFD_STREAM_COLO", side: "destination", phase: "checkpoint" },
    });
  });

  test("more device state than the limit is refused before it is read", async () => {
    const block = RamBlock.allocate("pc.ram", MIB);
    await using pair = await makePair({ blocks: [block] });
    const { primary, secondary, proxy } = pair;
    await primary.start();
    proxy.filter = (chunk, from, connection) => {
      const at = connection === "main" && from === "source" ? stateSizeAt(chunk) : -1;
      if (at >= 0) chunk.writeBigUInt64BE(1n << 40n, at + 4);
      return chunk;
    };
    expect(await failureOf(primary.checkpoint(allDirty(block)))).toBeInstanceOf(Error);
    expect((await secondary.ended()).cause?.code).toBe("ERR_MULTIFD_LIMIT_DEVICE_STATE");
  });

  test("a listener that throws ends the pair with its error", async () => {
    const block = RamBlock.allocate("pc.ram", MIB);
    await using pair = await makePair({ blocks: [block] });
    const { primary, secondary } = pair;
    await primary.start();
    secondary.on("checkpoint", () => {
      throw new RangeError("cannot load this state");
    });
    expect(await failureOf(primary.checkpoint(allDirty(block)))).toBeInstanceOf(Error);
    const left = await secondary.ended();
    expect(left.epoch).toBe(1);
    expect(left.cause?.message).toBe("cannot load this state");
  });

  test("a listener that does not end is named by the step that waits for it", async () => {
    const block = RamBlock.allocate("pc.ram", MIB);
    await using pair = await makePair({
      blocks: [block],
      destination: { timeouts: { idleMs: 3000 } },
    });
    const { primary, secondary } = pair;
    const never = Promise.withResolvers<void>();
    secondary.on("request", () => never.promise);
    await primary.start();
    expect(await failureOf(primary.checkpoint(allDirty(block)))).toBeInstanceOf(Error);
    never.resolve(); // the end of the pair waits for its listeners
    expect((await secondary.ended()).cause?.message).toBe(
      "Cannot begin checkpoint: the caller's own step was not done within 3000 ms",
    );
  });

  test("a primary that is lost before the first copy is complete leaves nothing to take over", async () => {
    const block = RamBlock.allocate("pc.ram", 8 * MIB);
    bytesOf(block).fill(1);
    await using pair = await makePair({ blocks: [block] });
    pair.proxy.filter = (chunk, _from, connection) =>
      connection === "channel" ? undefined : chunk;
    expect(await failureOf(pair.primary.start())).toBeInstanceOf(Error);
    expect(await failureOf(pair.secondary.ended())).toBeInstanceOf(Error);
    expect(pair.secondary.epoch).toBe(-1);
  });

  test("both sides can make the next pair", async () => {
    const block = RamBlock.allocate("pc.ram", MIB);
    for (let turn = 1; turn <= 3; turn++) {
      await using pair = await makePair({ blocks: [block] });
      await pair.primary.start();
      bytesOf(block).fill(turn);
      await pair.primary.checkpoint(allDirty(block));
      pair.proxy.cut();
      const { epoch } = await pair.secondary.ended();
      expect(epoch).toBe(1);
      expect(isEqual(block, pair.secondary.blocks[0]!)).toBe(true);
    }
  });
});
