/** Ids and names. An id is a DNS label, so that `{port}-{id}` can be one too. */

const ALPHABET = 'abcdefghijklmnopqrstuvwxyz0123456789';
const ID_LENGTH = 20;

export const SANDBOX_ID = /^sb[a-z0-9]{20}$/;
export const TEMPLATE_ID = /^tpl[a-z0-9]{20}$/;
export const TEMPLATE_NAME = /^[a-z0-9][a-z0-9_-]{0,62}$/;
export const TEAM_ID = /^(default|team_[a-z0-9]{16})$/;
/** Of a template: each tag names one build of it. */
export const TAG = /^[a-z0-9_.-]{1,128}$/;
/** The tag that is meant where none is said. */
export const DEFAULT_TAG = 'default';
/** A name or id, and a tag if it is not the default one. */
export const TEMPLATE_REF = /^[a-z0-9][a-z0-9_-]{0,62}(:[a-z0-9_.-]{1,128})?$/;
export const API_KEY = /^e2b_[0-9a-f]{40}$/;

/** `length` characters of [a-z0-9], each equally likely: bytes that would favour the first letters are dropped. */
function randomLabel(length: number): string {
  const limit = 256 - (256 % ALPHABET.length);
  let label = '';
  while (label.length < length) {
    for (const byte of crypto.getRandomValues(new Uint8Array(length * 2))) {
      if (byte < limit && label.length < length) label += ALPHABET[byte % ALPHABET.length];
    }
  }
  return label;
}

export const newSandboxId = (): string => `sb${randomLabel(ID_LENGTH)}`;
export const newTemplateId = (): string => `tpl${randomLabel(ID_LENGTH)}`;

export const newTeamId = (): string => `team_${randomLabel(16)}`;

export function newApiKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(20));
  return `e2b_${Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')}`;
}
