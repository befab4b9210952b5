/**
 * Arguments that say how connections are encrypted.
 *
 * @module
 */
import type { ParseArgsConfig } from "node:util";
import type { TlsOptions } from "../mod.ts";
import { keysOfCode } from "./psk_code.ts";
import { invalid, UsageError } from "./usage_error.ts";

/** How connections are encrypted, for `parseProgramArguments()`. */
export const TLS_OPTIONS = {
  "tls-creds": { type: "string" },
  "tls-psk-code": { type: "string" },
  "tls-username": { type: "string" },
  "tls-hostname": { type: "string" },
  "tls-verify-peer": { type: "string" },
  "tls-allow": { type: "string", multiple: true },
} as const satisfies ParseArgsConfig["options"];

/** What {@linkcode TLS_OPTIONS} mean, for usage texts. */
export const TLS_USAGE = `\
  --tls-creds KIND:DIR     encrypt with x509:DIR, certificates named as QEMU's tls-creds-x509 wants
                           them, or psk:DIR, whose keys.psk has a shared key (default: no TLS)
  --tls-psk-code CODE      encrypt with a secret that both sides are told, such as three-words-here;
                           @FILE takes it from a file, which other users of the machine do not see
  --tls-username NAME      psk: whose key a sender uses (default qemu)
  --tls-hostname NAME      x509: name in the receiver's certificate (default: the host it connects to)
  --tls-verify-peer WHAT   x509: on (default), or off: take peers without a certificate of theirs
  --tls-allow NAME         x509: distinguished name of a sender that a receiver takes, such as
                           CN=host,O=firm; may repeat (default: all that the authority has signed)`;

/** Values of a table of options as `parseProgramArguments()` returns them. */
export type ArgumentValues<Options extends NonNullable<ParseArgsConfig["options"]>> = {
  readonly [Name in keyof Options]?:
    | (Options[Name]["type"] extends "boolean"
        ? boolean
        : Options[Name]["multiple"] extends true
          ? string[]
          : string)
    | undefined;
};

/** {@linkcode TLS_OPTIONS}; undefined without any. */
export function tlsOptions(values: ArgumentValues<typeof TLS_OPTIONS>): TlsOptions | undefined {
  const { "tls-creds": creds, "tls-psk-code": code, "tls-username": username } = values;
  const [, kind, dir = ""] = /^(x509|psk):(.+)$/s.exec(creds ?? "") ?? [];
  if (creds !== undefined && kind === undefined) {
    throw invalid("--tls-creds", creds, "x509:DIR or psk:DIR");
  }
  if (creds !== undefined && code !== undefined) {
    throw new UsageError("Cannot use --tls-psk-code with --tls-creds: must be one of them");
  }
  for (const name of ["tls-hostname", "tls-verify-peer", "tls-allow"] as const) {
    if (kind === "x509" || values[name] === undefined) continue;
    throw new UsageError(`Cannot use --${name} without --tls-creds x509:DIR`);
  }
  if (code !== undefined) return { kind: "psk", keys: keysOf(code, username), username };
  if (kind === "psk") return { kind, dir, username };
  if (username !== undefined) {
    throw new UsageError("Cannot use --tls-username without --tls-creds psk:DIR");
  }
  if (kind === undefined) return undefined;
  const verify = values["tls-verify-peer"] ?? "on";
  if (!["on", "off"].includes(verify)) throw invalid("--tls-verify-peer", verify, "on or off");
  const { "tls-hostname": hostname, "tls-allow": allow } = values;
  return { kind: "x509", dir, hostname, verifyPeer: verify === "on", allow };
}

function keysOf(text: string, username: string | undefined): string {
  try {
    return keysOfCode(codeOf(text), username);
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    throw new UsageError(`Cannot use --tls-psk-code: ${cause.message}`, { cause });
  }
}

/** `--tls-psk-code`: the words, or those in a file. No message has anything of them. */
export function codeOf(text: string): string {
  if (!text.startsWith("@")) return text;
  try {
    return process.getBuiltinModule("node:fs").readFileSync(text.slice(1), "utf8");
  } catch (cause) {
    throw new UsageError(`Cannot use --tls-psk-code: cannot read ${text.slice(1)}`, { cause });
  }
}
