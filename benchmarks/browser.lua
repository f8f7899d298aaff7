-- A browser's twelve fields. The query and the cookie differ in each request, so that
-- caches of header lines are hit by the other fields only.
local template = table.concat({
   "GET /search?q=%d&page=1 HTTP/1.1",
   "Host: 127.0.0.1",
   "Connection: keep-alive",
   'sec-ch-ua: "Chromium";v="128", "Not;A=Brand";v="24"',
   "Upgrade-Insecure-Requests: 1",
   "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/128.0.0.0 Safari/537.36",
   "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
   "Sec-Fetch-Site: same-origin",
   "Sec-Fetch-Mode: navigate",
   "Referer: http://127.0.0.1/",
   "Accept-Encoding: gzip, deflate, br, zstd",
   "Accept-Language: en-GB,en;q=0.9,nl;q=0.8",
   "Cookie: theme=dark; session=8f14e45fceea167a5a36dedd4bea2543%08x",
   "\r\n",
}, "\r\n")

local count = 0

function request()
   count = count + 1
   return string.format(template, count, count)
end
