/**
 * What templates are called. A template has one id, mostly a name, and builds under tags. Each tag is a head of its own on
 * the host, so that a build lives as long as a tag names it, and a row of its own here:
 *
 *   the default tag   id `tpl…`       name `alias`
 *   any other         id `tpl…:tag`   name `alias:tag`
 */
import { DEFAULT_TAG, TAG, TEMPLATE_NAME, ThawError } from '@thaw/api';

/** As clients of E2B's API write it: `[namespace/](alias|id)[:tag]`. */
export interface TemplateName {
  namespace: string | undefined;
  /** Alias or id. */
  base: string;
  /** Undefined where none was said. */
  tag: string | undefined;
}

const NAMESPACE = /^[a-z0-9_-]{1,64}$/;

/** Undefined for what can't be the name of a template. */
export function readName(text: string): TemplateName | undefined {
  const match = /^(?:([^/:]*)\/)?([^/:]*)(?::([^/:]*))?$/.exec(text.trim().toLowerCase());
  const [namespace, base = '', tag] = match?.slice(1) ?? [];
  const isName =
    TEMPLATE_NAME.test(base) &&
    (namespace === undefined || NAMESPACE.test(namespace)) &&
    (tag === undefined || TAG.test(tag));
  return isName ? { namespace, base, tag } : undefined;
}

/** As `readName`, but throws `invalid_request`. */
export function parseName(text: string): TemplateName {
  const name = readName(text);
  if (name === undefined)
    throw new ThawError('invalid_request', `'${text.slice(0, 80)}' cannot be the name of a template`);
  return name;
}

/** The id or name of the row that is `tag` of `base`. */
export function tagged(base: string, tag = DEFAULT_TAG): string {
  return tag === DEFAULT_TAG ? base : `${base}:${tag}`;
}

/** Of a row's id or name: what all tags of a template have in common. */
export function baseOf(idOrName: string): string {
  return idOrName.split(':')[0]!;
}

export function tagOf(idOrName: string): string {
  return idOrName.split(':')[1] ?? DEFAULT_TAG;
}

/** Under which verbs on a template, all tags of it together, are in flight. */
export function verbKey(teamId: string | null, name: string): string {
  return `${teamId}/${baseOf(name)}`;
}

/** What stands before the slash in a template's full name: each team has its own, and its templates are in it. */
export function namespaceOf(teamId: string): string {
  return teamId;
}
