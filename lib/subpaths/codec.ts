/**
 * Methods of compression, their engines, and both without a session.
 *
 * @example
 * ```ts
 * import { PageStreamDecoder, PageStreamEncoder } from "multifd/codec";
 *
 * const memory = new SharedArrayBuffer(64 * 4096);
 * new Uint8Array(memory).fill(7);
 * const copy = new SharedArrayBuffer(memory.byteLength);
 * const pages = Uint32Array.of(0, 1, 2);
 * using encoder = new PageStreamEncoder({ memory, compression: "zlib" });
 * using decoder = new PageStreamDecoder({ memory: copy, compression: "zlib" });
 * decoder.decode(encoder.encode(pages), pages);
 * console.log(new Uint8Array(copy)[2 * 4096]); // 7
 * ```
 *
 * @module
 */
export { COMPRESSION_METHODS, type CompressionMethod } from "../codec/methods.ts";
export type { Compression, ResolvedCompression } from "../codec/registry.ts";
export {
  PageStreamDecoder,
  PageStreamEncoder,
  type PageStreamOptions,
} from "../codec/page_stream.ts";
export { ENGINE_NAMES, type EngineName } from "../codec/engine.ts";
export {
  capabilities,
  type Capabilities,
  type EngineCapability,
  type LibraryCapability,
  type MethodCapability,
} from "../capabilities.ts";
