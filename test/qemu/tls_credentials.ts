/**
 * Credentials for both ends of a connection between this library and a QEMU, in one folder.
 *
 * @module
 */
import type { TlsOptions } from "../../mod.ts";
import { pskFolder, TestAuthority } from "../kit/tls_folders.ts";

/** Our options as a receiver and as a sender, and QEMU's objects at the other end. */
export interface TlsPair {
  readonly receiver: TlsOptions;
  readonly sender: TlsOptions;
  readonly source: string;
  readonly target: string;
  /** Name that the target takes. */
  readonly authz?: string;
}

/** Makes credentials in a folder. */
export type MakeCredentials = (folder: string) => TlsPair;

/** QEMU's object of a side. */
export function tlsObject(
  kind: "psk" | "x509",
  dir: string,
  endpoint: "client" | "server",
  verify = true,
): string {
  return `tls-creds-${kind},dir=${dir},endpoint=${endpoint},verify-peer=${verify ? "on" : "off"}`;
}

/** One shared key. */
export function psk(folder: string): TlsPair {
  const dir = pskFolder(folder, "psk");
  const tls = { kind: "psk", dir } as const;
  const [source, target] = [tlsObject("psk", dir, "client"), tlsObject("psk", dir, "server")];
  return { receiver: tls, sender: tls, source, target };
}

/** Certificates of both sides, and the names that receivers take. */
export function x509(folder: string): TlsPair {
  const authority = new TestAuthority(folder, "authority");
  const server = authority.folder("server", "server", {});
  const client = authority.folder("client", "client", { commonName: "source" });
  return {
    receiver: { kind: "x509", dir: server, allow: "CN=source" },
    sender: { kind: "x509", dir: client },
    source: tlsObject("x509", client, "client"),
    target: tlsObject("x509", server, "server"),
    authz: "CN=source",
  };
}

/** A certificate of the receiver alone. */
export function x509OfReceiver(folder: string): TlsPair {
  const authority = new TestAuthority(folder, "authority");
  const server = authority.folder("server", "server", {});
  const client = authority.folder("client", "client");
  return {
    receiver: { kind: "x509", dir: server, verifyPeer: false },
    sender: { kind: "x509", dir: client },
    source: tlsObject("x509", client, "client"),
    target: tlsObject("x509", server, "server", false),
  };
}
