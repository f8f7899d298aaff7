create table if not exists orders (
    id bigint generated always as identity primary key,
    article text not null,
    ordered timestamptz not null default now()
);
