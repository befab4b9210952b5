import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { randomKeys } from "../../examples/psk_code.ts";

export { CertificateAuthority as TestAuthority } from "../../examples/certificate_authority.ts";

/** Makes a folder with a file of shared keys as QEMU reads it; its path. */
export function pskFolder(
  parent: string,
  name: string,
  users: readonly string[] = ["qemu"],
): string {
  const dir = join(parent, name);
  mkdirSync(dir);
  writeFileSync(join(dir, "keys.psk"), users.map(randomKeys).join(""), { mode: 0o600 });
  return dir;
}
