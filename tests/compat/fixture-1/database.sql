--
-- PostgreSQL database dump
--


-- Dumped from database version 15.18 (Debian 15.18-0+deb12u1)
-- Dumped by pg_dump version 15.18 (Debian 15.18-0+deb12u1)

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: api_keys; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.api_keys (
    id text NOT NULL,
    team_id text NOT NULL,
    hash text NOT NULL,
    prefix text NOT NULL,
    created_at timestamp(3) with time zone DEFAULT now() NOT NULL
);


--
-- Name: builds; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.builds (
    id text NOT NULL,
    parent_id text,
    generation integer NOT NULL,
    stored_bytes bigint NOT NULL,
    created_at timestamp(3) with time zone DEFAULT now() NOT NULL
);


--
-- Name: kysely_migration; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.kysely_migration (
    name character varying(255) NOT NULL,
    "timestamp" character varying(255) NOT NULL
);


--
-- Name: kysely_migration_lock; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.kysely_migration_lock (
    id character varying(255) NOT NULL,
    is_locked integer DEFAULT 0 NOT NULL
);


--
-- Name: sandboxes; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.sandboxes (
    id text NOT NULL,
    team_id text NOT NULL,
    host_id text DEFAULT 'default'::text NOT NULL,
    template_id text NOT NULL,
    template text NOT NULL,
    status text NOT NULL,
    revision integer DEFAULT 0 NOT NULL,
    vcpus integer NOT NULL,
    memory_mb integer NOT NULL,
    disk_mb integer NOT NULL,
    timeout_sec integer DEFAULT 0 NOT NULL,
    metadata jsonb DEFAULT '{}'::jsonb NOT NULL,
    host_ip text,
    isolation text,
    vmm text,
    backend text,
    build_id text,
    error_reason text,
    rolled_back_to text,
    created_at timestamp(3) with time zone DEFAULT now() NOT NULL,
    started_at timestamp(3) with time zone,
    last_active_at timestamp(3) with time zone,
    last_updated timestamp(3) with time zone DEFAULT now() NOT NULL,
    CONSTRAINT sandboxes_status_check CHECK ((status = ANY (ARRAY['pending'::text, 'running'::text, 'pausing'::text, 'paused'::text, 'resuming'::text, 'snapshotting'::text, 'stopping'::text, 'stopped'::text, 'error'::text])))
);


--
-- Name: tags; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.tags (
    template_id text NOT NULL,
    tag text NOT NULL,
    build_id text NOT NULL,
    created_at timestamp(3) with time zone DEFAULT now() NOT NULL
);


--
-- Name: teams; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.teams (
    id text NOT NULL,
    name text NOT NULL,
    created_at timestamp(3) with time zone DEFAULT now() NOT NULL
);


--
-- Name: templates; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.templates (
    id text NOT NULL,
    team_id text,
    name text NOT NULL,
    type text NOT NULL,
    vcpus integer,
    memory_mb integer,
    disk_mb integer NOT NULL,
    build_id text,
    created_at timestamp(3) with time zone DEFAULT now() NOT NULL,
    CONSTRAINT templates_type_check CHECK ((type = ANY (ARRAY['base'::text, 'snapshot'::text])))
);


--
-- Data for Name: api_keys; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.api_keys VALUES ('key_2a165d8ce45b84d9', 'default', '2a165d8ce45b84d9c9665524370d2336adc57b3769c4a80c9a12cfb134a4f437', 'e2b_c0ff', '2025-11-23 12:00:00.123+00');


--
-- Data for Name: builds; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.builds VALUES ('e34c6d9e-4523-4a22-a51f-f40a6726db88', NULL, 0, 24576, '2025-11-23 12:00:01.123+00');
INSERT INTO public.builds VALUES ('0ec7c0f4-2527-4e22-8fbf-2c206f8cb158', 'e34c6d9e-4523-4a22-a51f-f40a6726db88', 0, 65536, '2025-11-23 12:00:02.123+00');
INSERT INTO public.builds VALUES ('f16cabf1-c5a3-4dab-8cf3-07227ba9a63d', '0ec7c0f4-2527-4e22-8fbf-2c206f8cb158', 1, 5000000000, '2025-11-23 12:00:03.123+00');


--
-- Data for Name: kysely_migration; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.kysely_migration VALUES ('0001_first', '2026-11-24T00:10:43.247Z');


--
-- Data for Name: kysely_migration_lock; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.kysely_migration_lock VALUES ('migration_lock', 0);


--
-- Data for Name: sandboxes; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.sandboxes VALUES ('sbcompat00000000000001', 'default', 'default', 'minimal', 'minimal', 'paused', 4, 1, 128, 512, 0, '{"app": "old ü"}', NULL, 'emulated', 'qemu', 'uffd', 'f16cabf1-c5a3-4dab-8cf3-07227ba9a63d', NULL, NULL, '2025-11-23 12:00:06.123+00', '2025-11-23 12:00:07.123+00', '2025-11-23 12:00:08.123+00', '2025-11-23 12:00:09.123+00');
INSERT INTO public.sandboxes VALUES ('sbcompat10000000000000', 'default', 'default', 'minimal', 'minimal', 'running', 0, 2, 512, 4096, 0, '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2025-11-23 12:00:10.123+00', '2025-11-23 12:00:20.123+00', NULL, '2026-11-24 00:10:43.253+00');
INSERT INTO public.sandboxes VALUES ('sbcompat10000000000001', 'default', 'default', 'minimal', 'minimal', 'stopped', 0, 2, 512, 4096, 0, '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2025-11-23 12:00:11.123+00', '2025-11-23 12:00:21.123+00', NULL, '2026-11-24 00:10:43.253+00');
INSERT INTO public.sandboxes VALUES ('sbcompat10000000000002', 'default', 'default', 'minimal', 'minimal', 'error', 0, 2, 512, 4096, 0, '{}', NULL, NULL, NULL, NULL, NULL, 'the VM exited', NULL, '2025-11-23 12:00:12.123+00', '2025-11-23 12:00:22.123+00', NULL, '2026-11-24 00:10:43.253+00');
INSERT INTO public.sandboxes VALUES ('sbcompat10000000000003', 'default', 'default', 'minimal', 'minimal', 'pausing', 0, 2, 512, 4096, 0, '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2025-11-23 12:00:13.123+00', '2025-11-23 12:00:23.123+00', NULL, '2026-11-24 00:10:43.254+00');
INSERT INTO public.sandboxes VALUES ('sbcompat10000000000004', 'default', 'default', 'minimal', 'minimal', 'pending', 0, 2, 512, 4096, 0, '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2025-11-23 12:00:14.123+00', '2025-11-23 12:00:24.123+00', NULL, '2026-11-24 00:10:43.254+00');


--
-- Data for Name: tags; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.tags VALUES ('tplcompat00000000000001', 'v1', '0ec7c0f4-2527-4e22-8fbf-2c206f8cb158', '2026-11-24 00:10:43.252+00');


--
-- Data for Name: teams; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.teams VALUES ('default', 'default', '2026-11-24 00:10:43.22+00');


--
-- Data for Name: templates; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.templates VALUES ('minimal', NULL, 'minimal', 'base', NULL, NULL, 512, 'e34c6d9e-4523-4a22-a51f-f40a6726db88', '2025-11-23 12:00:04.123+00');
INSERT INTO public.templates VALUES ('tplcompat00000000000001', 'default', 'ready', 'snapshot', 1, 128, 512, '0ec7c0f4-2527-4e22-8fbf-2c206f8cb158', '2025-11-23 12:00:05.123+00');


--
-- Name: api_keys api_keys_hash_key; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.api_keys
    ADD CONSTRAINT api_keys_hash_key UNIQUE (hash);


--
-- Name: api_keys api_keys_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.api_keys
    ADD CONSTRAINT api_keys_pkey PRIMARY KEY (id);


--
-- Name: builds builds_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.builds
    ADD CONSTRAINT builds_pkey PRIMARY KEY (id);


--
-- Name: kysely_migration_lock kysely_migration_lock_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.kysely_migration_lock
    ADD CONSTRAINT kysely_migration_lock_pkey PRIMARY KEY (id);


--
-- Name: kysely_migration kysely_migration_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.kysely_migration
    ADD CONSTRAINT kysely_migration_pkey PRIMARY KEY (name);


--
-- Name: sandboxes sandboxes_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.sandboxes
    ADD CONSTRAINT sandboxes_pkey PRIMARY KEY (id);


--
-- Name: tags tags_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.tags
    ADD CONSTRAINT tags_pkey PRIMARY KEY (template_id, tag);


--
-- Name: teams teams_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.teams
    ADD CONSTRAINT teams_pkey PRIMARY KEY (id);


--
-- Name: templates templates_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.templates
    ADD CONSTRAINT templates_pkey PRIMARY KEY (id);


--
-- Name: templates templates_team_id_name_key; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.templates
    ADD CONSTRAINT templates_team_id_name_key UNIQUE NULLS NOT DISTINCT (team_id, name);


--
-- Name: builds_parent; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX builds_parent ON public.builds USING btree (parent_id);


--
-- Name: sandboxes_build; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX sandboxes_build ON public.sandboxes USING btree (build_id);


--
-- Name: sandboxes_list; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX sandboxes_list ON public.sandboxes USING btree (team_id, created_at DESC, id DESC);


--
-- Name: sandboxes_live; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX sandboxes_live ON public.sandboxes USING btree (host_id, status) WHERE (status <> 'stopped'::text);


--
-- Name: templates_build; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX templates_build ON public.templates USING btree (build_id);


--
-- Name: api_keys api_keys_team_id_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.api_keys
    ADD CONSTRAINT api_keys_team_id_fkey FOREIGN KEY (team_id) REFERENCES public.teams(id);


--
-- Name: sandboxes sandboxes_build_id_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.sandboxes
    ADD CONSTRAINT sandboxes_build_id_fkey FOREIGN KEY (build_id) REFERENCES public.builds(id);


--
-- Name: sandboxes sandboxes_team_id_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.sandboxes
    ADD CONSTRAINT sandboxes_team_id_fkey FOREIGN KEY (team_id) REFERENCES public.teams(id);


--
-- Name: tags tags_build_id_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.tags
    ADD CONSTRAINT tags_build_id_fkey FOREIGN KEY (build_id) REFERENCES public.builds(id);


--
-- Name: tags tags_template_id_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.tags
    ADD CONSTRAINT tags_template_id_fkey FOREIGN KEY (template_id) REFERENCES public.templates(id) ON DELETE CASCADE;


--
-- Name: templates templates_build_id_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.templates
    ADD CONSTRAINT templates_build_id_fkey FOREIGN KEY (build_id) REFERENCES public.builds(id);


--
-- Name: templates templates_team_id_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.templates
    ADD CONSTRAINT templates_team_id_fkey FOREIGN KEY (team_id) REFERENCES public.teams(id);


--
-- PostgreSQL database dump complete
--


