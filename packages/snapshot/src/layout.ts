/** Byte positions of the header format; the page that describes them is `spec/formats.md`. */
export const VERSION = 1;
export const METADATA_BYTES = 64;
export const ENTRY_BYTES = 40;

export const METADATA = { version: 0, blockSize: 8, size: 16, generation: 24, build: 32, base: 48 } as const;
export const ENTRY = { offset: 0, length: 8, build: 16, storageOffset: 32 } as const;
