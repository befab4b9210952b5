/**
 * The facts beside a guest image: how the guest was booted, which QEMU needs to load its snapshot.
 *
 * @module
 */

/** The `.json` file beside a `.ram` and a `.snap`. */
export interface GuestMeta {
  readonly name: string;
  /** MiB of RAM. */
  readonly mib: number;
  /** QEMU's machine type. */
  readonly machine: string;
  /** Arguments the guest was booted with; whoever loads the snapshot has to have the same devices. */
  readonly boot_args: readonly string[];
}

/**
 * Reads and checks such a file.
 *
 * @throws {Error} If it is not one.
 */
export async function readGuestMeta(path: string): Promise<GuestMeta> {
  const value: unknown = await Bun.file(path).json();
  if (isGuestMeta(value)) return value;
  throw new Error(`Cannot read ${path}: fields are missing, must be made by guest_image.ts`);
}

function isGuestMeta(value: unknown): value is GuestMeta {
  if (typeof value !== "object" || value === null) return false;
  const meta = value as Partial<Record<keyof GuestMeta, unknown>>;
  return (
    typeof meta.name === "string" &&
    typeof meta.mib === "number" &&
    typeof meta.machine === "string" &&
    Array.isArray(meta.boot_args) &&
    meta.boot_args.every((arg) => typeof arg === "string")
  );
}
