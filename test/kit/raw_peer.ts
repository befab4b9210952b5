/**
 * A source that speaks the protocol by hand, so that it can break it anywhere: bytes of handshakes,
 * packets and main streams, and connections that carry them.
 *
 * @module
 */
import { createConnection, type Socket } from "node:net";
import type { ByteWriter } from "../../lib/wire/byte_writer.ts";
import { encodeHandshake, HANDSHAKE_BYTES } from "../../lib/wire/handshake.ts";
import { MainStreamWriter } from "../../lib/wire/main_stream_writer.ts";
import { ramPacketBytes, RamPacketEncoder } from "../../lib/wire/packet.ts";
import { parseUuid } from "../../lib/wire/uuid.ts";
import { parseEndpoint, RamBlock } from "../../mod.ts";
import { written } from "./byte_ends.ts";
import { tableOf } from "./table_blocks.ts";

/** The block of all raw streams: 64 pages of 4 KiB named pc.ram. */
export const rawBlock = RamBlock.allocate("pc.ram", 64 * 4096);
const [table] = tableOf(rawBlock);

/** The 64 bytes a channel begins with. */
export function handshake(id: number, change?: (view: DataView) => void): Uint8Array {
  const view = new DataView(new ArrayBuffer(HANDSHAKE_BYTES));
  encodeHandshake(view, parseUuid(undefined), id);
  change?.(view);
  return new Uint8Array(view.buffer);
}

/** Pages of a packet and what follows it. */
interface RawPacket {
  readonly normal?: readonly number[];
  readonly zero?: readonly number[];
  readonly methodFlag?: number;
  /** Default: the normal pages, filled with their own number. */
  readonly payload?: Uint8Array;
  readonly change?: (view: DataView) => void;
}

/** A RAM packet with its payload. */
export function packet(raw: RawPacket = {}): Uint8Array {
  const { normal = [1, 2], zero = [], methodFlag = 0 } = raw;
  const payload =
    raw.payload ??
    new Uint8Array(Buffer.concat(normal.map((page) => new Uint8Array(4096).fill(page))));
  const view = new DataView(new ArrayBuffer(ramPacketBytes(4096)));
  const pages = Uint32Array.from([...normal, ...zero]);
  const encoder = new RamPacketEncoder(view, 4096);
  encoder.encodePages(table!, methodFlag, 1, pages, normal.length, zero.length, payload.byteLength);
  raw.change?.(view);
  return new Uint8Array(Buffer.concat([new Uint8Array(view.buffer), payload]));
}

/** A SYNC packet. */
export function syncPacket(): Uint8Array {
  const view = new DataView(new ArrayBuffer(ramPacketBytes(4096)));
  new RamPacketEncoder(view, 4096).encodeSync(2);
  return new Uint8Array(view.buffer);
}

/** Where a main stream ends. */
type StreamPart = "header" | "setup" | "part" | "end" | "whole";

const PARTS: readonly StreamPart[] = ["header", "setup", "part", "end", "whole"];

/** A main stream up to and including `last`: one sync point in setup and one in the END section. */
export function mainStream(
  last: StreamPart = "whole",
  block: (out: ByteWriter, writer: MainStreamWriter) => void = (_, writer) =>
    writer.blockList([table!]),
): Uint8Array {
  return written((out) => {
    const writer = new MainStreamWriter(out);
    const steps: Record<StreamPart, () => void> = {
      header: () => {
        writer.header({ machine: "raw", capabilities: [] });
        writer.openReturnPath();
        writer.ping(1);
      },
      setup: () => {
        writer.beginRamSection("start");
        block(out, writer);
        writer.syncMarker();
        writer.endRamSection();
      },
      part: () => {
        writer.beginRamSection("part");
        writer.endRamSection();
      },
      end: () => {
        writer.beginRamSection("end");
        writer.syncMarker();
        writer.endRamSection();
      },
      whole: () => writer.end({ devices: [] }),
    };
    for (const part of PARTS.slice(0, PARTS.indexOf(last) + 1)) steps[part]();
  });
}

/** All connections of one raw source; disposing cuts what is still open. */
export class RawSource implements Disposable {
  readonly #endpoint: string;
  readonly #sockets: Socket[] = [];
  /** What the destination has written on each connection. */
  readonly answers: Buffer[] = [];

  constructor(endpoint: string) {
    this.#endpoint = endpoint;
  }

  /** Opens a connection and writes `bytes`; returns its number. */
  async open(bytes?: Uint8Array): Promise<number> {
    const number = this.#sockets.length;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const endpoint = parseEndpoint(this.#endpoint);
    const socket =
      endpoint.kind === "tcp"
        ? createConnection({ host: endpoint.host, port: endpoint.port }, resolve)
        : createConnection(
            { path: "path" in endpoint ? endpoint.path : `\0${endpoint.name}` },
            resolve,
          );
    this.#sockets.push(socket);
    this.answers.push(Buffer.of());
    socket.on("data", (chunk: Buffer) => {
      this.answers[number] = Buffer.concat([this.answers[number] ?? Buffer.of(), chunk]);
    });
    socket.on("error", reject);
    await promise;
    if (bytes !== undefined) socket.write(bytes);
    return number;
  }

  /** Writes more to a connection. */
  write(connection: number, bytes: Uint8Array): void {
    this.#sockets[connection]?.write(bytes);
  }

  /** Ends a connection after what has been written. */
  end(connection: number): void {
    this.#sockets[connection]?.end();
  }

  /** Ends a connection with a reset. */
  reset(connection: number): void {
    this.#sockets[connection]?.resetAndDestroy();
  }

  [Symbol.dispose](): void {
    for (const socket of this.#sockets) socket.destroy();
  }
}
