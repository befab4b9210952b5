import { expect, test } from "bun:test";
import {
  analyze,
  compressSnapshot,
  connect,
  connectBlocking,
  connectPrimary,
  copySnapshot,
  createSnapshot,
  descriptorDevice,
  diffSnapshots,
  extractBlock,
  listen,
  listenBlocking,
  listenSecondary,
  memoryDevice,
  openSnapshot,
  PageStreamDecoder,
  PageStreamEncoder,
  RamBlock,
  record,
  relay,
  restore,
  ThreadPool,
  trackDirtyPages,
  trackDirtyPagesBlocking,
  verifySnapshot,
} from "../mod.ts";
import { saveSnapshot } from "./kit/snapshots.ts";
import { TemporaryFolder } from "./kit/temporary_folder.ts";

const endpoint = "127.0.0.1:0";
const memory = new SharedArrayBuffer(4096);

/** An option that no compiler has seen. */
function odd(name: string): object {
  return { [name]: 1 };
}

/** Each way into the library with one option that it does not have, and the one that is meant. */
async function messagesOf(
  calls: Readonly<Record<string, () => unknown>>,
): Promise<Record<string, string>> {
  const messages: Record<string, string> = {};
  for (const [name, call] of Object.entries(calls)) {
    try {
      await call();
      messages[name] = "nothing was thrown";
    } catch (error) {
      const { message } = error as Error;
      messages[name] = error instanceof TypeError ? message : `no TypeError: ${message}`;
      messages[name] = messages[name].replace(/must be one of .*/, "must be one of them");
    }
  }
  return messages;
}

function meant(name: string, nearest: string): string {
  return `Cannot use option ${name}: did you mean ${nearest}?`;
}

function unlike(name: string): string {
  return `Cannot use option ${name}: must be one of them`;
}

test("an option that a session does not know is a TypeError that names the nearest one", async () => {
  const blocks = [RamBlock.allocate("pc.ram", 4096)];
  const ends = { listen: { endpoint }, connect: { endpoint } };
  expect(
    await messagesOf({
      connect: () => connect({ endpoint, blocks, ...odd("syncmode") }),
      connectBlocking: () => connectBlocking({ endpoint, blocks, ...odd("maxBandwith") }),
      listen: () => listen({ endpoint, ...odd("ramBytesMaximum") }),
      listenBlocking: () => listenBlocking({ endpoint, ...odd("verfiy") }),
      connectPrimary: () => connectPrimary({ endpoint, blocks, ...odd("stateOverChannel") }),
      "connectPrimary, an option of connect()": () =>
        connectPrimary({ endpoint, blocks, ...odd("state") }),
      listenSecondary: () => listenSecondary({ endpoint, ...odd("applyThread") }),
      "listenSecondary, an option of listen()": () =>
        listenSecondary({ endpoint, ...odd("onWarning") }),
      record: () => record({ endpoint, output: "/nowhere", ...odd("outptu") }),
      restore: () => restore({ endpoint, input: "/nowhere", ...odd("inputs") }),
      relay: () => relay({ ...ends, ...odd("pagesize") }),
      "relay, listen": () => relay({ ...ends, listen: { endpoint, ...odd("channel") } }),
      "relay, connect": () => relay({ ...ends, connect: { endpoint, ...odd("compresion") } }),
      analyze: () => analyze("/nowhere", odd("ofset")),
    }),
  ).toEqual({
    connect: meant("syncmode", "syncMode"),
    connectBlocking: meant("maxBandwith", "maxBandwidth"),
    listen: unlike("ramBytesMaximum"),
    listenBlocking: meant("verfiy", "verify"),
    connectPrimary: meant("stateOverChannel", "stateOverChannels"),
    "connectPrimary, an option of connect()": unlike("state"),
    listenSecondary: meant("applyThread", "applyThreads"),
    "listenSecondary, an option of listen()": unlike("onWarning"),
    record: meant("outptu", "output"),
    restore: meant("inputs", "input"),
    relay: meant("pagesize", "pageSize"),
    "relay, listen": meant("listen.channel", "channels"),
    "relay, connect": meant("connect.compresion", "compression"),
    analyze: meant("ofset", "offset"),
  });
});

test("an option inside an option is a TypeError too", async () => {
  const blocks = [RamBlock.allocate("pc.ram", 4096)];
  const device = { idstr: "gpu", ...odd("instanceid") };
  const compression = { method: "zstd" as const, ...odd("levle") };
  const psk = { kind: "psk", dir: "/nowhere" } as const;
  const x509 = { kind: "x509", dir: "/nowhere" } as const;
  expect(
    await messagesOf({
      timeouts: () => connect({ endpoint, blocks, timeouts: odd("idelMs") }),
      "timeouts of a relay": () =>
        relay({ listen: { endpoint }, connect: { endpoint }, timeouts: odd("stalMs") }),
      compression: () => listen({ endpoint, compression }),
      "tls of a sender": () => connect({ endpoint, blocks, tls: { ...psk, ...odd("user") } }),
      "tls of a receiver": () => listen({ endpoint, tls: { ...x509, ...odd("verifypeer") } }),
      "tls of a relay": () =>
        relay({ listen: { endpoint, tls: { ...psk, ...odd("hostname") } }, connect: { endpoint } }),
      "devices of a sender": () => connect({ endpoint, blocks, devices: [device] }),
      "devices of a receiver": () =>
        listen({
          endpoint,
          devices: [{ ...device, load: { module: import.meta.url } }],
        }),
    }),
  ).toEqual({
    timeouts: meant("timeouts.idelMs", "idleMs"),
    "timeouts of a relay": meant("timeouts.stalMs", "stallMs"),
    compression: meant("compression.levle", "level"),
    "tls of a sender": unlike("tls.user"),
    "tls of a receiver": meant("tls.verifypeer", "verifyPeer"),
    "tls of a relay": unlike("tls.hostname"),
    "devices of a sender": meant("devices.instanceid", "instanceId"),
    "devices of a receiver": meant("devices.instanceid", "instanceId"),
  });
});

test("an option that blocks, snapshots, devices, codecs or pools do not know is a TypeError", async () => {
  using folder = new TemporaryFolder();
  const path = folder.file("guest.snap");
  const block = RamBlock.allocate("pc.ram", 8192);
  await saveSnapshot({ path, blocks: [block] });
  using snapshot = await openSnapshot(path);
  const output = folder.file("output");
  expect(
    await messagesOf({
      allocate: () => RamBlock.allocate("a", 4096, odd("pagesize")),
      fromBuffer: () => RamBlock.fromBuffer("a", memory, odd("zeored")),
      map: () => RamBlock.map("a", path, odd("writeable")),
      fromFile: () => RamBlock.fromFile("a", path, odd("signals")),
      toFile: () => block.toFile(output, odd("sginal")),
      trackDirtyPages: () => trackDirtyPages(block, odd("methods")),
      trackDirtyPagesBlocking: () => trackDirtyPagesBlocking(block, odd("bitmaps")),
      createSnapshot: () => createSnapshot({ path, blocks: [block], ...odd("inplace") }),
      openSnapshot: () => openSnapshot(path, odd("offst")),
      load: () => snapshot.load(odd("directIO")),
      prepareLoad: () => snapshot.prepareLoad(odd("preFault")),
      compressSnapshot: () => compressSnapshot(snapshot, output, odd("levels")),
      copySnapshot: () => copySnapshot(snapshot, output, odd("change")),
      extractBlock: () => extractBlock(snapshot, "pc.ram", output, odd("byte")),
      verifySnapshot: () => verifySnapshot(snapshot, odd("onprogress")),
      diffSnapshots: () => diffSnapshots(snapshot, snapshot, odd("block")).next(),
      PageStreamEncoder: () => new PageStreamEncoder({ memory, ...odd("pagSize") }),
      PageStreamDecoder: () => new PageStreamDecoder({ memory, ...odd("compresssion") }),
      memoryDevice: () => memoryDevice({ idstr: "gpu", buffer: memory, ...odd("byteLenght") }),
      descriptorDevice: () => descriptorDevice({ idstr: "gpu", fd: 0, ...odd("chunkbytes") }),
      ThreadPool: () => new ThreadPool(odd("threadMax")),
    }),
  ).toEqual({
    allocate: meant("pagesize", "pageSize"),
    fromBuffer: meant("zeored", "zeroed"),
    map: meant("writeable", "writable"),
    fromFile: meant("signals", "signal"),
    toFile: meant("sginal", "signal"),
    trackDirtyPages: meant("methods", "method"),
    trackDirtyPagesBlocking: meant("bitmaps", "bitmap"),
    createSnapshot: meant("inplace", "inPlace"),
    openSnapshot: meant("offst", "offset"),
    load: meant("directIO", "directIo"),
    prepareLoad: meant("preFault", "prefault"),
    compressSnapshot: meant("levels", "level"),
    copySnapshot: meant("change", "changes"),
    extractBlock: meant("byte", "bytes"),
    verifySnapshot: meant("onprogress", "onProgress"),
    diffSnapshots: meant("block", "blocks"),
    PageStreamEncoder: meant("pagSize", "pageSize"),
    PageStreamDecoder: meant("compresssion", "compression"),
    memoryDevice: meant("byteLenght", "byteLength"),
    descriptorDevice: meant("chunkbytes", "chunkBytes"),
    ThreadPool: meant("threadMax", "threadsMax"),
  });
});

test("an option that is like no other is answered with all there are", () => {
  expect(() => new ThreadPool(odd("verify"))).toThrow(
    new TypeError("Cannot use option verify: must be one of threadsMax, abortOnError"),
  );
});

test("an option that is known and undefined is as one that is not there", () => {
  const block = RamBlock.allocate("a", 4096, { pageSize: undefined, prefault: undefined });
  expect(block.pageSize).toBe(4096);
});
