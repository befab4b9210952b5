/**
 * What this machine can do: which native libraries are there, which of them can serve as the engine
 * of which compression method, and which one would be taken.
 *
 * @module
 */
import { libcVersion, LIBC } from "../ffi/libc.ts";
import { LIBGNUTLS } from "../ffi/libgnutls.ts";
import { gnutlsVersion } from "../ffi/libgnutls_facts.ts";
import { mappedFile, type LibrarySource } from "../ffi/library.ts";
import { openUserfaultfd } from "../ffi/userfaultfd.ts";
import type { EngineName } from "./codec/engine.ts";
import { engineFailure, ENGINES } from "./codec/engines.ts";
import { COMPRESSION_METHODS, METHODS, type CompressionMethod } from "./codec/methods.ts";
import { resolveCompression, type CodecDirection } from "./codec/registry.ts";
import { TLS_PROTOCOL, TLS_SUITES, type TlsSuite } from "./net/tls_suites.ts";

/** One native library. */
export interface LibraryCapability {
  /** Short name, for example `libzstd`. */
  readonly name: string;
  /** Whether it opens and has every symbol needed. */
  readonly available: boolean;
  /** Version as the library tells it; absent when it is missing or has no call for it. */
  readonly version?: string;
  /** File that was opened, links resolved; absent when missing. */
  readonly path?: string;
  /** Debian package that brings it. */
  readonly debianPackage: string;
  /** Environment variable with a path that replaces the library's soname. */
  readonly override: string;
  /** Why it is not available; absent when it is. */
  readonly reason?: string;
}

/** One compression method. */
export interface MethodCapability {
  /** Name as in QEMU's `multifd-compression`. */
  readonly method: CompressionMethod;
  /** Whether this machine can send and receive with it. */
  readonly available: boolean;
  /** Lowest and highest level; absent for methods without levels. */
  readonly levels?: readonly [number, number];
  /** Engines that speak it; empty when it needs none. */
  readonly engines: readonly EngineCapability[];
  /** Engine a sender takes at level 1 unless told otherwise; absent without one. */
  readonly encoder?: EngineName;
  /** Engine a receiver takes unless told otherwise; absent without one. */
  readonly decoder?: EngineName;
}

/** One engine of a method. */
export interface EngineCapability {
  /** Name as in `{ method, engine }`. */
  readonly engine: EngineName;
  /** The library behind it, a name of {@linkcode Capabilities.libraries}. */
  readonly library: string;
  /** Whether the library is there. */
  readonly available: boolean;
  /** Whether an accelerator does the work; present only for engines that can have one. */
  readonly accelerated?: boolean;
}

/** Whether pages can come in when they are touched, as `Snapshot.attach()` does it. */
export interface PageFaultCapability {
  /** Whether the kernel lets this process do so. */
  readonly available: boolean;
  /** Whether system calls wait for such pages too; they fail with EFAULT otherwise. */
  readonly systemCalls: boolean;
  /** Why one of both is not there; absent when both are. */
  readonly reason?: string;
}

/** Encryption of connections. */
export interface TlsCapability {
  /** Whether this machine can encrypt. */
  readonly available: boolean;
  /** The library that does it, a name of {@linkcode Capabilities.libraries}. */
  readonly library: string;
  /** Always `TLS 1.3`. */
  readonly protocol: string;
  /** What is offered, the first preferred; a shared key leaves out those with SHA-384. */
  readonly suites: readonly TlsSuite[];
}

/** See {@linkcode capabilities}. */
export interface Capabilities {
  /** Every library this one can use, available or not. */
  readonly libraries: readonly LibraryCapability[];
  /** Every compression method. */
  readonly methods: readonly MethodCapability[];
  /** What the kernel does for pages that are not there. */
  readonly pageFaults: PageFaultCapability;
  /** Encryption of connections. */
  readonly tls: TlsCapability;
}

const LIBRARIES: readonly { source: LibrarySource; version: () => string | undefined }[] = [
  { source: LIBC, version: libcVersion },
  ...Object.values(ENGINES),
  { source: LIBGNUTLS, version: gnutlsVersion },
];

/** Page size that the preference is reported for. */
const PAGE_BYTES = 4096;

/**
 * Opens every library that is there and says what was found. Never throws for a missing one.
 *
 * @example
 * ```ts
 * const { libraries, methods } = capabilities();
 * console.log(libraries.filter(({ available }) => !available).map(({ debianPackage }) => debianPackage));
 * console.log(methods.filter(({ available }) => available).map(({ method }) => method));
 * ```
 */
export function capabilities(): Capabilities {
  const libraries = LIBRARIES.map(({ source, version }) => probe(source, version));
  const library = LIBGNUTLS.name;
  const available = libraries.some((one) => one.name === library && one.available);
  return {
    libraries,
    methods: COMPRESSION_METHODS.map(probeMethod),
    pageFaults: probePageFaults(),
    tls: { available, library, protocol: TLS_PROTOCOL, suites: TLS_SUITES },
  };
}

function probePageFaults(): PageFaultCapability {
  const { scope, reason, userfaultfd } = openUserfaultfd();
  userfaultfd?.[Symbol.dispose]();
  return {
    available: scope !== undefined,
    systemCalls: scope === "all",
    ...(reason === undefined ? {} : { reason }),
  };
}

function probeMethod(method: CompressionMethod): MethodCapability {
  const { levels, coding } = METHODS[method];
  const engines = (coding?.engines ?? []).map(probeEngine);
  const available = engines.length === 0 || engines.some((engine) => engine.available);
  const choose = (direction: CodecDirection): EngineName | undefined =>
    available ? resolveCompression(method, direction, PAGE_BYTES).engine : undefined;
  const [encoder, decoder] = [choose("encode"), choose("decode")];
  return {
    method,
    available,
    ...(levels === undefined ? {} : { levels }),
    engines,
    ...(encoder === undefined ? {} : { encoder }),
    ...(decoder === undefined ? {} : { decoder }),
  };
}

function probeEngine(engine: EngineName): EngineCapability {
  const { source, accelerated } = ENGINES[engine];
  const available = engineFailure(engine) === undefined;
  return {
    engine,
    library: source.name,
    available,
    ...(available && accelerated !== undefined ? { accelerated: accelerated() } : {}),
  };
}

function probe(source: LibrarySource, version: () => string | undefined): LibraryCapability {
  const { name, debianPackage, override } = source;
  try {
    const text = version();
    const path = mappedFile(source);
    return {
      name,
      available: true,
      ...(text === undefined ? {} : { version: text }),
      ...(path === undefined ? {} : { path }),
      debianPackage,
      override,
    };
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    return { name, available: false, debianPackage, override, reason };
  }
}
