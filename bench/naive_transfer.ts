/**
 * The script one would write without this library: one socket of Bun's, the image in chunks of
 * 512 KiB, each compressed at once or not at all. It is here to be compared with, so it is written
 * as plainly as such scripts are, but not badly: one copy on the receiver, nothing quadratic.
 *
 * A chunk on the wire: u32 little-endian raw length, u32 wire length, the bytes. When the image is
 * complete the receiver answers with one byte.
 *
 * @module
 */

import { deflateSync, inflateSync } from "node:zlib";
import { BenchSide, sideOptions, transferBetween } from "./bench_process.ts";
import type { CompressionMethod } from "../mod.ts";
import type { TransferOptions, TransferRun } from "./contender.ts";

const CHUNK_BYTES = 512 * 1024;
const HEADER_BYTES = 8;
const PAGE_BYTES = 4096;

/** Makes one transfer by the naive script. */
export async function naiveTransfer(options: TransferOptions): Promise<TransferRun> {
  const { verify } = options;
  return transferBetween(
    ["naive_transfer.ts", options],
    (endpoint) => ["naive_transfer.ts", { ...options, port: Number(endpoint) }],
    verify,
  );
}

function compress(compression: CompressionMethod, level: number, bytes: Uint8Array<ArrayBuffer>) {
  if (compression === "zstd") return Bun.zstdCompressSync(bytes, { level });
  return compression === "zlib" ? deflateSync(bytes, { level }) : bytes;
}

function decompress(compression: CompressionMethod, bytes: Uint8Array<ArrayBuffer>): Uint8Array {
  return compression === "zstd" ? Bun.zstdDecompressSync(bytes) : inflateSync(bytes);
}

async function send({ image: file, compression, level }: TransferOptions, port: number) {
  const side = new BenchSide();
  const image = await Bun.file(file).bytes();
  await side.ready();
  side.startCounting(image.byteLength);

  let wake = (): void => {};
  const confirmed = Promise.withResolvers<void>();
  const connectMs = performance.now();
  const socket = await Bun.connect({
    hostname: "127.0.0.1",
    port,
    socket: {
      data: () => confirmed.resolve(),
      drain: () => wake(),
      close: () => confirmed.reject(new Error("Cannot send: the receiver went away")),
    },
  });
  const writeAll = async (bytes: Uint8Array): Promise<void> => {
    for (let at = socket.write(bytes); at < bytes.byteLength;) {
      const drained = Promise.withResolvers<void>();
      wake = drained.resolve;
      await Promise.race([drained.promise, confirmed.promise]);
      at += socket.write(bytes.subarray(at));
    }
  };

  side.endSetUp();
  let wireBytes = 0;
  const header = new Uint32Array(2); // little-endian on every machine Bun runs on
  const startMs = performance.now();
  for (let at = 0; at < image.byteLength; at += CHUNK_BYTES) {
    const chunk = image.subarray(at, at + CHUNK_BYTES);
    const bytes = compress(compression, level, chunk);
    header[0] = chunk.byteLength;
    header[1] = bytes.byteLength;
    await writeAll(new Uint8Array(header.buffer));
    await writeAll(bytes);
    wireBytes += HEADER_BYTES + bytes.byteLength;
  }
  await confirmed.promise;
  side.finish(connectMs, startMs, wireBytes);
  process.exit(0);
}

async function receive({ imageBytes: bytes, compression, verify }: TransferOptions) {
  const side = new BenchSide();
  const image = new Uint8Array(bytes);
  for (let at = 0; at < bytes; at += PAGE_BYTES) image[at] = 1; // resident, as the others' RAM is
  side.startCounting(bytes);

  let stored = 0;
  const pending = new Uint8Array(HEADER_BYTES + 2 * CHUNK_BYTES); // a header, or a compressed chunk
  let pendingBytes = 0;
  let wanted = HEADER_BYTES;
  let inHeader = true;
  const store = (piece: Uint8Array): void => {
    image.set(piece, stored);
    stored += piece.byteLength;
  };
  /** Takes what it can from `data` and says how much. */
  const take = (data: Uint8Array): number => {
    const piece = data.subarray(0, wanted - pendingBytes);
    const storedAtOnce = !inHeader && compression === "none";
    if (storedAtOnce) store(piece);
    else pending.set(piece, pendingBytes);
    pendingBytes += piece.byteLength;
    if (pendingBytes < wanted) return piece.byteLength;
    if (inHeader) wanted = new DataView(pending.buffer).getUint32(4, true);
    else {
      if (!storedAtOnce) store(decompress(compression, pending.subarray(0, wanted)));
      wanted = HEADER_BYTES;
    }
    inHeader = !inHeader;
    pendingBytes = 0;
    return piece.byteLength;
  };

  const server = Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      data: (socket, data) => {
        for (let at = 0; at < data.byteLength;) at += take(data.subarray(at));
        if (stored < bytes) return;
        socket.write(Uint8Array.of(1));
        side.report(side.counts());
        if (verify) {
          side.report({ sha256: new Bun.CryptoHasher("sha256").update(image).digest("hex") });
        }
        socket.end();
        server.stop();
        process.exit(0);
      },
    },
  });
  side.endSetUp();
  side.report({ endpoint: String(server.port) });
}

if (import.meta.main) {
  const { port, ...options } = sideOptions() as TransferOptions & { readonly port?: number };
  await (port === undefined ? receive(options) : send(options, port));
}
