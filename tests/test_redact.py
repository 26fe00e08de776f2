"""redact: the secret goes, the rest stays readable, and an ordinary line comes back unchanged.

A secret is written «kind» or «kindN» (N characters) and made up when the tests run, from a seed, so that this file
holds nothing that is shaped like a live token. `->` is followed by a word of the line that must survive.
"""

from __future__ import annotations

import json
import os
import random
import re
import string
import subprocess
import sys
import time
from base64 import b64encode
from pathlib import Path

import pytest
from conftest import REPO

from ai_log_analyzer import REDACTED, environment_secrets, excerpt, redact

_ALNUM = string.ascii_letters + string.digits
_ALPHABETS = {
    "alnum": _ALNUM,
    "hex": "0123456789abcdef",
    "HEX": "0123456789ABCDEF",
    "upper": string.ascii_uppercase + string.digits,
    "lower": string.ascii_lowercase + string.digits,
    "std": _ALNUM + "+/",
    "url": _ALNUM + "-_",
    "digits": string.digits,
}
_WORDS = [
    "orbit",
    "velvet",
    "canyon",
    "lumber",
    "pistol",
    "garden",
    "silver",
    "monkey",
    "throw",
    "ribbon",
    "hazard",
]


def _make(kind: str, length: int, rng: random.Random) -> str:
    if kind == "pw":
        return (
            "".join(rng.choices("bcdfghjkmnpqrtvwxz", k=5))
            + rng.choice("!#^*")
            + "".join(rng.choices(_ALNUM, k=6))
            + "7"
        )
    if kind == "word":  # a password of plain letters
        return "".join(rng.choices("bcdfghjkmnpqrtvwxz", k=9))
    if kind == "spaced":
        return " ".join(rng.sample(_WORDS, 4)) + " 9!"
    if kind == "seed":
        return " ".join(rng.choices(_WORDS, k=length))
    if kind == "uuid":
        return "-".join("".join(rng.choices("0123456789abcdef", k=n)) for n in (8, 4, 4, 4, 12))
    if kind == "userpass":
        return b64encode(b"quant:" + "".join(rng.choices(_ALNUM, k=11)).encode()).decode()
    return "".join(rng.choices(_ALPHABETS[kind], k=length - 2)) + {
        "digits": "83",
        "lower": "k7",
        "hex": "e9",
        "HEX": "E9",
        "upper": "Q7",
    }.get(kind, "Z4")


def fill(template: str, seed: int) -> tuple[str, list[str]]:
    """The line and its secrets."""
    rng = random.Random(seed)
    secrets: list[str] = []

    def one(hit: re.Match[str]) -> str:
        secrets.append(_make(hit[1], int(hit[2] or 12), rng))
        return secrets[-1]

    return re.sub(r"«([A-Za-z]+)(\d*)»", one, template), secrets


def left_over(line: str, secrets: list[str], output: str) -> list[str]:
    """Pieces of four characters of the secrets that are still there, other than those that the rest holds anyway."""
    rest = line
    for secret in secrets:
        rest = rest.replace(secret, "\0")
    pieces = {secret[i : i + 4] for secret in secrets for i in range(max(1, len(secret) - 3))}
    return sorted(piece for piece in pieces if piece in output and piece not in rest and piece not in REDACTED)


LINES_WITH_SECRETS = r"""
X-MBX-APIKEY: «alnum64» sent to fapi -> fapi
headers={'X-MBX-APIKEY': '«alnum64»', 'Accept': 'json'} -> Accept
GET /fapi/v2/account?timestamp=1731628800000&signature=«hex64» HTTP/1.1 400 -> timestamp=1731628800000
POST https://api.binance.com/api/v3/order?symbol=BTCUSDT&side=BUY&signature=«hex64»&recvWindow=5000 -> recvWindow=5000
OK-ACCESS-KEY: «uuid» -> OK-ACCESS-KEY
OK-ACCESS-SIGN: «std44»= -> OK-ACCESS-SIGN
OK-ACCESS-PASSPHRASE: «pw» rejected by okx -> okx
{"OK-ACCESS-KEY": "«uuid»", "OK-ACCESS-SIGN": "«std44»", "OK-ACCESS-PASSPHRASE": "«pw»", "OK-ACCESS-TIMESTAMP": "2026-11-15T04:00:00Z"} -> 2026-11-15T04:00:00Z
X-BAPI-API-KEY=«alnum18» X-BAPI-SIGN=«hex64» X-BAPI-RECV-WINDOW=5000 -> RECV-WINDOW=5000
'X-BAPI-SIGN': '«hex64»', 'X-BAPI-SIGN-TYPE': '2' -> 'X-BAPI-SIGN-TYPE': '2'
client = Client("«alnum64»", "«alnum64»", testnet=True) -> testnet=True
File "bot.py", line 3: ex = UMFutures('«alnum64»', '«alnum64»') -> bot.py
HTTP(testnet=False, api_key='«alnum18»', api_secret='«alnum36»') -> testnet=False
ccxt.okx({'apiKey': '«uuid»', 'secret': '«HEX32»', 'password': '«pw»', 'timeout': 3000}) -> 3000
apiKey: «alnum64» loaded for binance -> binance
BINANCE_API_KEY=«alnum64» BINANCE_TESTNET=true -> BINANCE_TESTNET=true
BYBIT_API_SECRET=«alnum36» -> BYBIT_API_SECRET
{"listenKey":"«lower64»","ttl":3600} -> 3600
keepalive listenKey=«alnum60» status 200 -> status 200
wss://stream.binance.com:9443/ws/«alnum64» connected -> connected
Authorization: Bearer «url40» -> Authorization
Authorization: Basic «userpass» from 10.0.0.3 -> 10.0.0.3
authorization: token «hex40» -> authorization
Authorization: Digest username="bob", realm="x", nonce="«hex32»", response="«hex32»" -> Authorization
Authorization: AWS4-HMAC-SHA256 Credential=AKIA«upper16»/20261115/us-east-1/s3/aws4_request, SignedHeaders=host;x-amz-date, Signature=«hex64» -> Authorization
Proxy-Authorization: Negotiate «std200»== -> Proxy-Authorization
Authorization: Hawk id="dh37", ts="1353832234", mac="«std44»=" -> Authorization
Authorization: GenieKey «uuid» 403 -> Authorization
-H 'Authorization: Bearer «alnum32»' https://api.example.com/v1/me -> https://api.example.com/v1/me
{"headers":{"Authorization":"Bearer «url40»","Host":"api.example.com"}} -> api.example.com
headers: {'Authorization': 'Basic «userpass»', 'Accept': '*/*'} -> Accept
map[Accept:[json] Authorization:[Bearer «alnum40»] Host:[x.example]] -> x.example
(b'authorization', b'Bearer «alnum40»'), (b'host', b'x.example') -> x.example
sending Bearer «alnum32» upstream -> upstream
auth header was basic «userpass» for user quant -> header was
jwt eyJ«url20».eyJ«url60».«url43» expired at 12:00 -> expired at 12:00
id_token=eyJ«url20».eyJ«url60».«url43»&state=ok -> state=ok
jwe eyJ«url20»..«url16».«url60».«url22» decoded -> decoded
aws_access_key_id = AKIA«upper16» -> aws_access_key_id
aws_secret_access_key = «std40» -> aws_secret_access_key
AWS_SECRET_ACCESS_KEY=«std40» AWS_REGION=eu-west-1 -> eu-west-1
{"AccessKeyId":"ASIA«upper16»","SecretAccessKey":"«std40»","SessionToken":"«std200»==","Expiration":"2026-11-15"} -> Expiration
x-amz-security-token: «std200» -> x-amz-security-token
https://b.s3.amazonaws.com/f.parquet?X-Amz-Credential=AKIA«upper16»%2F20261115&X-Amz-Signature=«hex64» -> f.parquet
maps key AIza«url35» over quota -> over quota
oauth ya29.«url60» refreshed -> refreshed
"private_key": "-----BEGIN PRIVATE KEY-----\n«std64»\n«std64»\n«std20»==\n-----END PRIVATE KEY-----\n", "client_email": "x@y" -> client_email
DefaultEndpointsProtocol=https;AccountName=quant;AccountKey=«std86»==;EndpointSuffix=core.windows.net -> EndpointSuffix=core.windows.net
Endpoint=sb://q.servicebus.windows.net/;SharedAccessKeyName=Root;SharedAccessKey=«std43»= -> Endpoint=sb
SharedAccessSignature sr=https%3A%2F%2Fq&sig=«std43»%3D&se=1731628800 -> se=1731628800
https://a.blob.core.windows.net/c/f?sv=2022-11-02&sig=«std43»%3D&sp=r -> sp=r
remote: using ghp_«alnum36» for fetch -> for fetch
gho_«alnum36» revoked -> revoked
github_pat_«alnum22»_«alnum59» used -> used
cloning with glpat-«url20» failed -> cloning
slack xoxb-«digits11»-«digits12»-«alnum24» invalid_auth -> invalid_auth
xapp-1-«upper11»-«digits13»-«hex64» socket -> socket
stripe sk_live_«alnum24» charge ch_12 -> charge ch_12
stripe rk_live_«alnum24» denied -> denied
//registry.npmjs.org/:_authToken=npm_«alnum36» -> registry.npmjs.org
uploading with pypi-«url120» to pypi -> to pypi
huggingface hf_«alnum34» gated -> gated
openai sk-«alnum48» quota -> quota
openai sk-proj-«url74» quota -> quota
anthropic sk-ant-api03-«url93»AA overloaded -> overloaded
SG.«url22».«url43» sendgrid 202 -> sendgrid 202
POST https://discord.com/api/webhooks/«digits18»/«url68» 429 -> 429
POST https://discordapp.com/api/v10/webhooks/«digits19»/«url68»?wait=true -> wait=true
https://hooks.slack.com/services/T«upper8»/B«upper10»/«alnum24» answered no_service -> no_service
https://hooks.slack.com/workflows/T«upper8»/A«upper10»/«digits18»/«alnum24» -> hooks.slack.com
https://api.telegram.org/bot«digits10»:«url35»/sendMessage 401 -> sendMessage 401
telegram token «digits10»:«url35» ok -> telegram
https://chat.example.com/hooks/«lower26» posted -> posted
https://n8n.example.com/webhook/«uuid» 200 -> n8n.example.com
https://acme.webhook.office.com/webhookb2/«uuid»@«uuid»/IncomingWebhook/«hex32»/«uuid» -> acme
discord login M«alnum23».«url6».«url38» gateway ready -> gateway ready
https://quant:«pw»@repo.example.com/simple/ 403 -> repo.example.com/simple
postgres://quant:«pw»@db:5432/trades timeout -> db:5432/trades timeout
postgresql+asyncpg://quant:«alnum8»/«alnum6»@db/trades -> trades
redis://:«alnum6»/«alnum6»@redis:6379/0 refused -> redis:6379/0
redis://default:«alnum5»@«alnum5»#«alnum5»@redis:6379/0 refused -> refused
rediss://:«alnum6»#«alnum6»@cache.example:6380 -> cache.example:6380
amqp://guest:«word»@mq:5672/vhost closed -> mq:5672/vhost closed
mongodb+srv://bot:«pw»@c0.mongodb.net/db?retryWrites=true -> retryWrites=true
SENTRY_DSN=https://«hex32»@o12.ingest.sentry.io/42 -> ingest.sentry.io/42
quant:«pw»@tcp(mysql:3306)/trades?parseTime=true -> parseTime=true
dsn root:«alnum5»@«alnum5»/«alnum4»@tcp(10.0.0.2:3306)/db -> tcp(10.0.0.2:3306)
host=db port=5432 user=quant password=«pw» dbname=trades -> dbname=trades
host=db password='«spaced»' sslmode=require -> sslmode=require
could not connect: "dbname=x password=«word» host=db" -> host=db
Server=db;User Id=sa;Password=«pw»;Encrypt=true -> Encrypt=true
jdbc:mysql://db/trades?user=app&password=«alnum14»&useSSL=false -> useSSL=false
-----BEGIN RSA PRIVATE KEY----- «std64» «std64» «std64» -> BEGIN RSA PRIVATE KEY
key dump -----BEGIN OPENSSH PRIVATE KEY-----\n«std64»\n«std40» -> key dump
-----BEGIN EC PRIVATE KEY-----\r\n«std64»\r\n«std30»==\r\n-----END EC PRIVATE KEY----- trailer -> trailer
tail of it: «std64» «std64» «std17»= -----END PRIVATE KEY----- stop -> stop
reading tail «std64»\n«std17»==\n-----END RSA PRIVATE KEY----- stop -> reading tail
«std64» -> [REDACTED]
Cookie: sessionid=«alnum32»; csrftoken=«alnum32» -> Cookie
Set-Cookie: sid=«url40»; Path=/; HttpOnly -> Set-Cookie
{'Cookie': 'JSESSIONID=«HEX32»', 'Host': 'x.example'} -> x.example
session_id=«alnum32» user=7 -> user=7
PHPSESSID=«lower26» open -> open
"sessionId":"«uuid»","user":7 -> "user":7
connect.sid=s%3A«url32».«url43» seen -> seen
DB_PASSWORD=«pw» DB_HOST=db -> DB_HOST=db
userPassword: «pw» -> userPassword
clientSecret: '«alnum20»', clientId: 'quant' -> clientId: 'quant'
{"user":"bob","password":"«pw»","ok":false} -> "ok":false
{"user":"bob","password":"«spaced»","ok":false} -> "ok":false
{\"user\":\"bob\",\"password\":\"«pw»\",\"ok\":false} -> bob
"{\\\"password\\\":\\\"«pw»\\\",\\\"host\\\":\\\"db\\\"}" -> host
{"msg":"{\"token\":\"«alnum24»\",\"n\":1}"} -> msg
{'user': 'bob', 'password': '«pw»', 'n': 1} -> 'n': 1
Settings(host='db', password='«word»', port=5432) -> port=5432
Settings(host=db, password=«pw», port=5432) -> port=5432
Config(password=SecretStr('«pw»'), debug=False) -> debug=False
User(name='bob', api_key=ApiKey("«alnum24»"), n=2) -> n=2
password: «word» -> password
  db_passwd: "«spaced»" # note -> note
secret_key: «alnum50» -> secret_key
SECRET_KEY_BASE=«hex64» RAILS_ENV=production -> RAILS_ENV=production
export API_KEY_BINANCE=«alnum40» -> API_KEY_BINANCE
POST /login user=bob&pwd=«alnum12»&next=/ -> next=/
GET /cb?access_token=«url40»&state=7 -> state=7
body=user%3Dbob%26password%3D«alnum12»%26next%3Dhome -> home
<password>«pw»</password><host>db</host> -> <host>db</host>
<ns:Password type="text">«spaced»</ns:Password> end -> end
<add key="DbPassword" value="«pw»" /> next -> next
<user name="bob" password="«pw»" role="admin"/> -> role="admin"
[('user', 'bob'), ('password', '«pw»')] -> bob
("client_secret", "«alnum24»") posted -> posted
{b'password': b'«pw»', b'n': 1} -> b'n': 1
{"name":"DB_PASSWORD","value":"«pw»"} applied -> applied
os.environ['DB_PASSWORD'] = '«pw»' set -> environ
CREATE USER bot IDENTIFIED BY '«pw»' REQUIRE SSL -> REQUIRE SSL
ALTER USER 'bot'@'%' IDENTIFIED WITH caching_sha2_password BY '«spaced»'; -> ALTER USER
CREATE ROLE bot LOGIN PASSWORD '«pw»' VALID UNTIL 'infinity' -> VALID UNTIL
ALTER ROLE bot WITH ENCRYPTED PASSWORD '«word»'; -> ALTER ROLE bot
SET PASSWORD FOR 'bot' = PASSWORD('«pw»') done -> done
run: app --password «pw» --host db -> --host db
run: app --password=«word» --host db -> --host db
run: app --api-key "«alnum24»" --symbol BTCUSDT -> --symbol BTCUSDT
run: app --client-secret «alnum24» start -> start
curl -u quant:«pw» https://api.example.com -> https://api.example.com
curl --user 'quant:«word»' https://api.example.com -> https://api.example.com
mysql -u root -p«pw» trades -> trades
mysqldump --single-transaction -uroot -p«word» trades > out.sql -> out.sql
redis-cli -h redis -a «pw» PING -> PING
redis-cli -a '«spaced»' INFO -> INFO
sshpass -p «word» ssh bot@host -> bot@host
PGPASSWORD=«pw» psql -h db -> psql -h db
requirepass «word» -> requirepass
machine git.example login bot password «word» -> git.example
mnemonic: «seed12» -> mnemonic
seed phrase = "«seed24»" restored -> restored
wallet recovery phrase: «seed12» -> recovery
{"mnemonic":"«seed12»","index":0} -> index
private key: 0x«hex64» imported -> imported
seed=«hex64» -> seed=
Your verification code is «digits6» -> Your verification code
OTP: «digits6» sent to +47 -> +47
2FA code for bob: «digits6» -> bob
{"otp":"«digits6»","user":"bob"} -> bob
totp_code=«digits6» ok -> ok
«digits6» is your login code -> login code
PIN=«digits4» entered -> entered
password for db was «pw»? no: password is «pw» -> for db
blob «std80» end -> end
blob «url64» end -> end
X-Auth-Token: «hex32» tenant 4 -> tenant 4
refresh_token «alnum40» rotated -> rotated
credentials="«alnum20»" region=eu -> region=eu
smtp_pass=«word» smtp_port=587 -> smtp_port=587
"dbpass": "«word»", "port": 3 -> "port": 3
hmac signature: «std44»= mismatch -> mismatch
csrf_token=«alnum32» form=login -> form=login
requests.get(url, auth=('bob', '«word»')) -> requests.get
HTTPBasicAuth('bob', '«pw»') used -> used
passphrase => "«spaced»" -> passphrase
ENCRYPTION_KEY="«std43»=" MODE=gcm -> MODE=gcm
""password"":""«pw»"",""n"":1 -> ""n"":1
&quot;password&quot;:&quot;«alnum14»&quot; html -> html
%22password%22%3A%22«alnum14»%22%2C%22n%22 -> "n"
KC-API-KEY: «hex24» KC-API-PASSPHRASE: «pw» kucoin -> kucoin
CB-ACCESS-SIGN: «std43»= CB-ACCESS-TIMESTAMP: 1731628800 -> 1731628800
kraken API-Sign: «std86»== nonce=1731628800 -> nonce=1731628800
exchange = ccxt.binance({"apiKey": "«alnum64»", "secret": "«alnum64»", "enableRateLimit": True}) -> enableRateLimit
BybitClient(api_key="«alnum18»", api_secret="«alnum36»", demo=True) -> demo=True
BinanceSocketManager(Client('«alnum64»','«alnum64»')) -> BinanceSocketManager
binance.exceptions url='https://fapi.binance.com/fapi/v1/listenKey?listenKey=«lower64»' -> fapi.binance.com
DEBUG params: timestamp=1&recvWindow=5000&signature=«hex64» -> recvWindow=5000
sign payload 1731628800GET/v5/order, sign=«hex64», ok -> payload
Authorization=Bearer%20«alnum40» -> Authorization
> Authorization: ApiKey «std56»== -> Authorization
authorization: Splunk «uuid» -> authorization
"Authorization": "Token token=«hex32»", "Accept": "x" -> Accept
set header Authorization: Bearer «lower24» for order 7 -> for order 7
Authorization: «alnum32» -> Authorization
Authorization: SharedKey quant:«std43»= -> Authorization
{"authorization":["Bearer «url43»"],"host":["x.io"]} -> x.io
grpc metadata authorization='bearer «url43»' peer=x.io -> peer=x.io
connect.auth.header=Basic «userpass» -> connect.auth.header
vault token hvs.«url90» renewed -> renewed
VAULT_TOKEN=s.«alnum24» -> VAULT_TOKEN
digitalocean dop_v1_«hex64» -> digitalocean
grafana glsa_«alnum32»_«hex8» ok -> grafana
doppler dp.pt.«alnum43» ok -> doppler
linear lin_api_«alnum40» ok -> linear
groq gsk_«alnum52» limit -> limit
replicate r8_«alnum37» cold -> cold
shopify shpat_«hex32» call -> call
mailgun key-«hex32» sent -> sent
square sq0atp-«url22» ok -> square
facebook EAACEdEose0cBA«alnum90» ok -> facebook
newrelic NRAK-«upper27» ok -> newrelic
sendinblue xkeysib-«hex64»-«alnum16» ok -> sendinblue
docker hub dckr_pat_«url27» login -> login
gitlab runner glrt-«url20» registered -> registered
github app ghs_«alnum36» minted -> minted
atlassian ATATT3«url180»=«HEX8» ok -> atlassian
cloudflare CF_API_TOKEN="«url40»" zone=x -> zone=x
tailscale tskey-auth-«alnum16»-«alnum32» up -> up
https://oauth2:glpat-«url20»@gitlab.com/quant/rl.git -> gitlab.com/quant/rl.git
https://«lower40»@github.com/quant/rl.git -> github.com
https://discord.com/api/v10/webhooks/«digits19»/«url68» -> discord.com
ptb.discord.com/api/webhooks/«digits19»/«url68»?thread_id=5 -> thread_id=5
https://chat.googleapis.com/v1/spaces/AAAA/messages?key=AIza«url35»&token=«url43» -> chat.googleapis.com
https://hc-ping.com/«uuid» ok -> hc-ping.com
https://api.telegram.org/file/bot«digits9»:AA«url33»/x.jpg -> x.jpg
TELEGRAM_BOT_TOKEN: "«digits10»:AA«url33»" chat_id: 77 -> chat_id: 77
mysql+pymysql://app:«pw»@10.0.0.2/trades?charset=utf8 -> charset=utf8
clickhouse://default:«word»@ch:9000/default slow -> slow
amqps://quant:«alnum7»@«alnum5»@b-1.mq.eu:5671 -> b-1.mq.eu:5671
redis://:«alnum5»@«alnum7»@redis.svc:6379/2?ssl=true lost -> lost
nats://quant:«pw»@nats:4222 -> nats:4222
ftp://quant:«word»@files/x.csv 530 -> files/x.csv
smtp://bot%40x.io:«pw»@smtp.x.io:587 -> smtp.x.io:587
socks5h://u1:«word»@proxy:1080 -> proxy:1080
app_user:«pw»@tcp(127.0.0.1:3306)/quant?timeout=5s -> timeout=5s
user:«pw»@unix(/tmp/mysql.sock)/quant -> mysql.sock
conninfo "user=quant password='«spaced»' host=db" -> host=db
Data Source=db;Initial Catalog=q;User ID=sa;Pwd=«pw»; -> Initial Catalog=q
PWD=«alnum14»;UID=sa;DRIVER={ODBC Driver 18} -> UID=sa
spring.datasource.password=«word» -> spring.datasource.password
SPRING_DATASOURCE_PASSWORD: «pw» -> SPRING_DATASOURCE_PASSWORD
environment: - MYSQL_ROOT_PASSWORD=«word» -> MYSQL_ROOT_PASSWORD
GF_SECURITY_ADMIN_PASSWORD=«word» GF_LOG=console -> GF_LOG=console
admin_pw: '«word»' -> admin_pw
dbPassword => "«word»", -> dbPassword
:password=>"«pw»", :host=>"db" -> db
%{password: "«pw»", host: "db"} -> db
{:password "«pw»" :host "db"} -> db
password := "«word»" // go -> go
let password: &str = "«word»"; -> &str
final String password = "«word»"; -> final String
Credentials(username=bob, password=«word», roles=[admin]) -> roles=[admin]
LoginRequest{user='bob', password='«word»'} -> bob
{User:bob Password:«word» Port:5432} -> Port:5432
&{User:bob Pass:«pw» Port:5432} -> Port:5432
<Credential><AccessKey>«upper20»</AccessKey><Secret>«std40»</Secret></Credential> -> Credential
<property name="hibernate.connection.password">«word»</property> tail -> tail
<setting key="apiKey">«alnum32»</setting> tail -> tail
{"key":"smtp_password","value":"«word»","n":1} -> "n":1
- name: REDIS_PASSWORD value: «word» -> REDIS_PASSWORD
--set auth.postgresPassword=«word» --wait -> --wait
--build-arg NPM_TOKEN=npm_«alnum36» . -> --build-arg
docker run -e POSTGRES_PASSWORD=«word» -p 5432:5432 postgres:16 -> postgres:16
docker login -u quant -p «pw» ghcr.io -> ghcr.io
wget --user=bob --password='«spaced»' https://x.io -> https://x.io
http --auth bob:«pw» https://x.io -> https://x.io
psql "postgresql://quant:«pw»@db/q" -c select -> select
mongosh -u root -p «word» --eval x -> --eval x
mysqladmin -uroot -p'«pw»' ping -> ping
mariadb -h db -u q -p«word» -e "select 1" -> select 1
redis-cli --pass «word» ping -> ping
redis-cli -u redis://:«word»@redis:6379 ping -> ping
ldapsearch -x -D cn=admin -w «word» -b dc=x -> dc=x
openssl rsa -in k.pem -passin pass:«word» -out o -> -out o
zip --password «word» out.zip -> out.zip
"AUTH" "«word»" -> AUTH
1700000000.1 [0 10.0.0.3:5] "AUTH" "default" "«pw»" -> default
CONFIG SET requirepass «pw» -> CONFIG SET
> PASS «pw» -> PASS
CREATE USER MAPPING FOR bob SERVER s OPTIONS (user 'bob', password '«pw»') -> SERVER
GRANT ALL ON *.* TO 'bob'@'%' IDENTIFIED BY '«word»' -> GRANT ALL
CHANGE MASTER TO MASTER_USER='r', MASTER_PASSWORD='«pw»', MASTER_PORT=3306 -> MASTER_PORT=3306
INSERT INTO users (name, password) VALUES ('bob', '$2b$12$«alnum53»') -> INSERT INTO users
password_hash=$2b$12$«alnum53» user=bob -> user=bob
passwd: «word» -> passwd
login failed with password '«word»' from 10.0.0.3 -> 10.0.0.3
tried password "«spaced»" for bob -> for bob
Your password is «alnum14» -> Your password
new_password=«word»&confirm_password=«word»&x=1 -> x=1
{\"api_key\": \"«alnum32»\", \"n\": 1} -> n
"body":"{\\\"secret\\\":\\\"«pw»\\\"}" -> body
password%3D«word»%26user%3Dbob -> user=bob
"password":"«pw»\\n","x":1 -> "x":1
Set-Cookie: __Host-session=«url43»; Secure; SameSite=Lax -> Set-Cookie
cookies: {'sessionid': '«lower32»', 'theme': 'dark'} -> theme
cookie="connect.sid=s%3A«url32».«url40»" path=/ -> path=/
ASP.NET_SessionId=«lower24»; path=/ -> path=/
laravel_session=«url60» hit -> hit
session token: «hex40» user bob -> user bob
session-id «hex32» created -> created
sid=«lower26» login -> login
X-CSRF-Token: «std43»= 403 -> 403
X-Vault-Token: «alnum26» -> X-Vault-Token
Ocp-Apim-Subscription-Key: «hex32» -> Subscription-Key
x-functions-key: «std54»== -> x-functions-key
Private-Token: «url20» -> Private-Token
X-Amz-Security-Token=«std180»%3D&X-Amz-Date=2026 -> X-Amz-Date=2026
GOOGLE_CLIENT_SECRET=GOCSPX-«url28» -> GOOGLE_CLIENT_SECRET
{"type":"service_account","private_key_id":"abc","private_key":"-----BEGIN PRIVATE KEY-----\\n«std64»\\n«std24»=\\n-----END PRIVATE KEY-----\\n","client_email":"x@y"} -> client_email
-----BEGIN PGP PRIVATE KEY BLOCK----- Version: GnuPG «std64» «std64» -> PGP
ssh key -----BEGIN RSA PRIVATE KEY----- Proc-Type: 4,ENCRYPTED DEK-Info: AES-128-CBC,«HEX32» «std64» «std64» -> ssh key
WALLET_MNEMONIC="«seed24»" NET=main -> NET=main
seedPhrase='«seed12»' idx=0 -> idx=0
privkey=«alnum51» -> privkey
xprv9s21ZrQH143K«alnum96» derived -> derived
2FA: «digits6» -> 2FA
Google verification code: G-«digits6» -> Google
Enter code «digits6» to log in: your OTP is «digits6» -> to log in
authenticator code «digits6» rejected -> rejected
mfa_code: «digits6» -> mfa_code
one-time password «digits6» expires -> expires
sms code=«digits4» -> sms
{"twoFactorCode":"«digits6»"} -> twoFactorCode
"passcode": "«digits6»" -> passcode
license_key=«upper5»-«upper5»-«upper5»-«upper5» -> license_key
webhook_secret: whsec_«std32» -> webhook_secret
rabbit default_pass = «word» -> rabbit
auth_token:«hex32» next -> next
accessToken='«url60»' exp=3600 -> exp=3600
token: «alnum32» -> token
(token «hex40») -> token
OAuthToken{access_token=«alnum40», expires_in=3600} -> expires_in=3600
Secret[«alnum32»] -> Secret
apikey «alnum32» is invalid -> is invalid
invalid api key: «alnum32» -> invalid api key
SecretBytes(b'«pw»') -> SecretBytes
password: !vault «word» -> password
[2026-11-15 04:00:01] DEBUG urllib3 https://api.bybit.com:443 "GET /v5/account?api_key=«alnum18»&sign=«hex64»&timestamp=1 HTTP/1.1" 200 -> timestamp=1
request headers {'X-BAPI-API-KEY': '«alnum18»', 'X-BAPI-SIGN': '«hex64»', 'X-BAPI-TIMESTAMP': '1731'} -> 1731
ERROR binance key «alnum64» rejected -> rejected
BinanceAPIException with apiKey=«alnum64»: code=-2015 -> code=-2015
bitget ACCESS-KEY: bg_«hex32» ACCESS-SIGN: «std43»= ACCESS-PASSPHRASE: «word» -> bitget
okx login args [{"apiKey":"«uuid»","passphrase":"«pw»","timestamp":"1731628800","sign":"«std43»="}] -> 1731628800
exchange_secret="«alnum64»" -> exchange_secret
AsyncClient.create('«alnum64»', '«alnum64»') -> AsyncClient.create
okx.Trade.TradeAPI("«uuid»", "«HEX32»", "«pw»", False, "0") -> TradeAPI
POST /api/v3/userDataStream listenKey: «alnum60» -> userDataStream
curl -H "X-MBX-APIKEY: «alnum64»" -X POST https://api.binance.com/x -> https://api.binance.com/x
curl -XPOST -u 'admin:«pw»' http://grafana:3000/api -> http://grafana:3000/api
curl -H 'authorization: bearer «alnum20»' http://x/y -> http://x/y
HTTP_AUTHORIZATION=Bearer «url50» REMOTE_ADDR=1.2.3.4 -> REMOTE_ADDR=1.2.3.4
Authorization: bearer «lower32». Retrying -> Retrying
Authorization: Digest username="bot", realm="api", nonce="«hex32»", uri="/x", response="«hex32»", opaque="«hex32»" -> Authorization
"authorization" => "Basic «userpass»" -> authorization
Authorization: OAuth oauth_consumer_key="«alnum25»", oauth_token="«alnum40»", oauth_signature="«std27»%3D" -> Authorization
Authorization: HMAC-SHA256 «uuid»:«std43»= -> Authorization
Bearer eyJ«url20».eyJ«url60».«url43» invalid -> invalid
{'access_token': 'eyJ«url20».eyJ«url60».«url43»', 'expires_in': 300} -> 300
aws configure set aws_secret_access_key «std40» -> aws configure set
credentials: AKIA«upper16»/«std40» -> credentials
secretAccessKey: "«std40»", region: "eu-west-1" -> eu-west-1
aws_session_token=«std300»== end -> end
AZURE_STORAGE_KEY=«std86»== acct=q -> acct=q
AZURE_CLIENT_SECRET=«alnum3»~«alnum34» x=1 -> x=1
BlobEndpoint=https://q.blob.core.windows.net/;SharedAccessSignature=sv=2022&ss=b&sig=«std43»%3D -> BlobEndpoint
gcp: AIza«url35» invalid -> invalid
GITHUB_TOKEN=ghp_«alnum36» GITHUB_ACTOR=x -> GITHUB_ACTOR=x
error: token ghp_«alnum36» lacks scope repo -> lacks scope repo
SLACK_BOT_TOKEN='xoxb-«digits12»-«digits12»-«alnum24»' -> SLACK_BOT_TOKEN
stripe.api_key = "sk_test_«alnum24»" -> stripe.api_key
openai.AuthenticationError: Incorrect API key provided: sk-«alnum48». You can -> You can
ANTHROPIC_API_KEY=sk-ant-api03-«url93»AA -> ANTHROPIC_API_KEY
HF_TOKEN: hf_«alnum34» -> HF_TOKEN
npm ERR! //registry.npmjs.org/:_auth=«std40» -> npm ERR
twine upload -u __token__ -p pypi-«url160» dist/* -> dist/*
send failed: https://hooks.slack.com/services/T«upper8»/B«upper8»/«alnum24» -> send failed
alert to https://discord.com/api/webhooks/«digits18»/«url68» failed: 404 -> 404
HTTPSConnectionPool(host='discord.com', port=443): Max retries exceeded with url: /api/webhooks/«digits19»/«url68» (Caused by X) -> Caused by X
HTTPSConnectionPool(host='api.telegram.org', port=443): url: /bot«digits10»:AA«url33»/getUpdates -> getUpdates
HTTPSConnectionPool(host='hooks.slack.com', port=443): Max retries exceeded with url: /services/T«upper8»/B«upper8»/«alnum24» -> Max retries
DISCORD_TOKEN=M«alnum23».«url6».«url38» -> DISCORD_TOKEN
sqlalchemy.exc: (Background on postgresql://bot:«alnum6»@«alnum4»@pg/trades) -> Background
DATABASE_URL="postgres://u:«alnum16»@pg:5432/trades?sslmode=require" -> sslmode=require
redis.from_url('redis://:«alnum10»/«alnum5»=@redis:6379/1') -> redis:6379/1
CELERY_BROKER_URL=redis://:«word»#«digits4»@redis:6379/0 -> redis:6379/0
go: dial bot:«alnum6»@«alnum6»@tcp(db:3306)/q: timeout -> timeout
psql: "host=db user=bot password='«word»' connect_timeout=3" -> connect_timeout=3
conn: password = «pw» user = bot -> user = bot
libpq password='«alnum5» it\'s «alnum6»' dbname=q -> dbname=q
MIIEvQIBADAN«std52» -> [REDACTED]
"-----BEGIN RSA PRIVATE KEY-----\\nMIIE«std60»\\n«std64»... (truncated)" -> truncated
«std64»\\n«std12»==\\n-----END PRIVATE KEY-----\\n" -> END PRIVATE KEY
cookie: _ga=GA1.2.«digits9»; session=«url80»; cf=«url20» -> cookie
Session ID: «hex32» -> Session ID
session_key «alnum32» -> session_key
sessionid=«lower32»; expires=x -> expires=x
User(id=3, email='b@x', hashed_password='$2b$12$«alnum53»', is_active=True) -> is_active=True
DBSettings(dsn=PostgresDsn('postgresql://q:«pw»@db/q'), n=1) -> n=1
Settings(binance_api_key=SecretStr('«alnum64»'), debug=False) -> debug=False
BaseSettings api_secret=«alnum36» debug=False -> debug=False
@dataclass Creds(key='«alnum64»', secret='«alnum64»') -> Creds
{\"userPassword\": \"«spaced»\", \"id\": 7} -> id
{\\\"clientSecret\\\":\\\"«alnum24»\\\"} -> clientSecret
'{"db": {"pass": "«word»", "port": 3}}' -> port
{"credentials":{"login":"bob","password":"«word»"}} -> bob
password:"«word»",user:"bob" -> bob
password: '«spaced»' -> password
  password: «pw» # rotated -> # rotated
passwd=«word»; user=bob -> user=bob
passphrase: «word» -> passphrase
old_password='«word»', new_password='«pw»' -> new_password
PASSWORD «pw» rejected -> rejected
wrong password «alnum12» for bob -> for bob
pass=«word»&x=1 -> x=1
?user=bob&pass=«word»&x=1 -> x=1
?token=«hex32»#frag -> token
api-key=«hex32», id=7 -> id=7
(api_key, "«alnum32»") -> api_key
('secret', '«spaced»'), ('n', 1) -> 'n', 1
["password", "«pw»"] -> password
b'{"password": "«pw»", "n": 1}' -> "n": 1
headers=[(b'x-api-key', b'«alnum40»'), (b'n', b'1')] -> b'n'
<db:password>«pw»</db:password> -> db:password
<server user="bob" pwd="«word»" host="db"/> -> host="db"
<apiKey>«alnum32»</apiKey><n>1</n> -> <n>1</n>
<token type='x'>«hex40»</token> -> token
login%3Fpassword%3D«alnum12»%26n%3D1 -> n=1
CREATE USER 'q'@'%' IDENTIFIED WITH mysql_native_password AS '*«HEX40»' -> CREATE USER
ALTER USER postgres PASSWORD '«spaced»'; -> ALTER USER postgres
create role bot with login encrypted password '«word»' valid until -> valid until
SET PASSWORD = '«word»' -> SET PASSWORD
./run.sh --db-password «word» --n 1 -> --n 1
python bot.py --secret=«alnum36» --symbol X -> --symbol X
python bot.py --token "«alnum36»" run -> run
--apikey «alnum32» --n 1 -> --n 1
mysql -h db -uroot -p«alnum10» -e 'show tables' -> show tables
mysql --user=root --password='«spaced»' db -> mysql --user=root
redis-cli -p 6379 -a «alnum14» info -> info
['redis-cli', '-a', '«alnum14»', 'ping'] -> ping
['mysql', '-uroot', '-p«alnum14»', 'q'] -> mysql
['curl', '-u', 'bob:«alnum14»', 'http://x'] -> http://x
['app', '--password', '«pw»', '--n'] -> --n
export PGPASSWORD='«pw»'; psql -> psql
echo «alnum14» | docker login --password-stdin -> --password-stdin
seed words: «seed12» -> seed words
BIP39 mnemonic '«seed12»' -> BIP39
recovery_phrase="«seed24»" -> recovery_phrase
MNEMONIC=«seed12» -> MNEMONIC
['mnemonic', '«seed12»'] -> mnemonic
OTP «digits6» -> OTP
Use «digits6» as your verification code -> as your verification code
otp_code: "«digits6»" -> otp_code
2FA token «digits6» -> 2FA
Your Binance security code: «digits6». Do not share -> Do not share
verification_code=«digits6» -> verification_code
Login code: «digits5» -> Login code
TOTP=«digits6» skew=1 -> skew=1
confirmation code is «digits6» -> confirmation
key material «std88»== loaded -> loaded
payload=«url120» size=90 -> size=90
"""

HARMLESS_LINES = r"""
request 550e8400-e29b-41d4-a716-446655440000 done
container 4f1c2e9b7a3d started
container 4f1c2e9b7a3d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7 removed
Pulled image quant/rl@sha256:9b2cf5d0f6c3a1e4b7d8090a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e
HEAD is now at 3f2a1bc Merge branch 'exit-brain'
commit 9fceb02d0ae598e95dc970b74767f19372d61af8
order 8389765589123 filled at 43210.55
orderId=8389765589123 clientOrderId=web_7RbGZxXkQvTn2hLw status=FILLED
tx 0x5c504ed432cb51138bcf09aa5e8a410dd4a1e204ef84bfed1be16dfba1b22060 confirmed
tx_hash=0x5c504ed432cb51138bcf09aa5e8a410dd4a1e204ef84bfed1be16dfba1b22060
md5 5d41402abc4b2a76b9719d911017c592 matches
digest: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
BTCUSDT price=43210.55 qty=0.015
tokens=512 latency=1.2s
max_tokens: 4096
{"token_count": 5, "model": "rl"}
"prompt_tokens":120,"completion_tokens":88,"total_tokens":208
token: BTC
token=USDT
token: 1000SHIBUSDT
token=WETH-USDC pool=0.3%
token 0x7a250d5630B4cF539739dF2C5dAcb4c659F2488D listed
token=0xdac17f958d2ee523a2206206994597c13d831ec7 symbol=USDT
FATAL:  password authentication failed for user "x"
Access denied for user 'root'@'localhost' (using password: YES)
Access denied for user 'root'@'localhost' (using password: NO)
{"code":-2015,"msg":"Invalid API-key, IP, or permissions for action."}
{"code":-2014,"msg":"API-key format invalid."}
password: ***
password=********
password=<redacted>
"password": "[REDACTED]"
DB_PASSWORD=${DB_PASSWORD}
DB_PASSWORD=$DB_PASSWORD
password=%s user=%s
SELECT id FROM users WHERE name = $1 AND password = $2
UPDATE users SET password = ? WHERE id = ?
password=None token=None
"api_key": null, "secret": null
SecretStr('**********')
Settings(password=SecretStr('**********'))
reading /run/secrets/db_password
POSTGRES_PASSWORD_FILE=/run/secrets/db_password
private_key_path: /etc/ssl/private/server.key
ssl_certificate_key /etc/nginx/certs/example.com/privkey.pem
token=/var/run/secrets/kubernetes.io/serviceaccount/token
loading /opt/quantum_trader_v3/ai_engine/agents/reinforcement/Checkpoints/BTCUSDT_1h_2026_11_15/model_v3.pt
/home/QuantUser1/Projects/QuantumTraderV3/backend/services/ExitBrainV3/DynamicExecutor/TakeProfitOptimizer2.py
at com.example.trading.execution.ExitBrainDynamicExecutorServiceImpl.execute(ExitBrainDynamicExecutorServiceImpl.java:142)
org.springframework.security.authentication.UsernamePasswordAuthenticationToken
org.springframework.security.web.authentication.www.BasicAuthenticationFilter@5f2a1b3c
AbstractSingletonProxyFactoryBeanInvocationHandlerV2Impl3 created
class UsernamePasswordAuthenticationTokenFilterConfigurer2 registered
  File "/app/ai_engine/agents/token_manager.py", line 88, in refresh_token
    conn = psycopg2.connect(host=host, user=user, password=password)
    client = Client(api_key, api_secret)
    self.token = self.store.get_token(name)
    api_key = os.getenv("BINANCE_API_KEY")
    secret=settings.BINANCE_SECRET, timeout=10
    raise KeyError('password')
KeyError: 'api_key'
TypeError: connect() got an unexpected keyword argument 'password'
NameError: name 'token' is not defined
SyntaxError: Unexpected token '<'
Unexpected token } in JSON at position 12
session started
session opened for user root by (uid=0)
Session 42 of user quant logged out
pam_unix(sshd:session): session closed for user quant
Failed password for invalid user admin from 10.0.0.9 port 50022 ssh2
Accepted publickey for quant from 10.0.0.9 port 50022 ssh2: ED25519 SHA256:Zk3bQ9xTq1cV7mN2pL5sD8fG0hJ4kW6yR1uE3iO9aBc
auth: ok
auth: disabled
token expired
token is expired
invalid token: expired at 2026-11-15T04:00:00Z
token_expires=2026-11-15T04:00:00Z
tokenizer loaded
tokenizer=bert-base-uncased-v2024 loaded
TOKENIZERS_PARALLELISM=false
secretary notified
passed=12 failed=0
12 passed, 1 skipped in 3.2s
pass=12 fail=3
pass: true
bypass=enabled4today
compass: north
key=BTCUSDT
primary key violated
Duplicate entry '42-BTCUSDT' for key 'trades.idx_order'
keyword: trailing-stop
cache key: user:42
cache_key=orders:2026:BTCUSDT
routing_key=trades.btcusdt.fill
idempotency_key=550e8400-e29b-41d4-a716-446655440000
partition key=7
author: x
author=Bob Smith
authority: letsencrypt
10.0.0.3 - - [15/Nov/2026:04:00:00 +0000] "GET /api/v1/orders?symbol=BTCUSDT&limit=50 HTTP/1.1" 200 512 "-" "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"
10.0.0.3 - bob [15/Nov/2026:04:00:00 +0000] "POST /login HTTP/1.1" 302 0
POST /api/auth/token 401 12ms
GET /reset-password?step=2 200
bearer of bad news
basic auth enabled
Basic authentication required
WWW-Authenticate: Basic realm="restricted"
Authorization header missing
Authorization: none
authorization: failed for user bob
authorization required
colour #ff8800aa used
quantum-trader 3.2.1-rc.4+build.20261115.abc123f
2026-11-15T04:00:00.123456Z tick
2001:0db8:85a3:0000:0000:8a2e:0370:7334 unreachable
mac 02:42:ac:11:00:02 on veth3a9f1b2
a3ed95caeb02: Pull complete
pod rl-agent-6d4cf56db6-x7k2p evicted
docker-4f1c2e9b7a3d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7.scope: Succeeded.
systemd[1]: Started session-c12.scope - Session c12 of User quant.
systemd-networkd-wait-online.service: Main process exited, code=exited, status=1/FAILURE
exit code 137
status code: 200
error code: 100403
HTTP status code is 500123 bytes
verification failed: depth 0
verification code sent
mfa enabled for 12 users
one-time password sent
otp length 6
pin: 17 high
seed=42
random seed: 1234567
seed phrase: invalid
mnemonic not configured
signature: valid
signature verification failed
design=minimal sign=1
assign=worker-12
cookie: accepted
cookies enabled
Set-Cookie header ignored
http://redis:6379/0
redis://redis:6379/0 connected
postgres://db:5432/trades ready
postgresql://quant@db:5432/trades ready
https://example.com:8080/path?email=bob@example.com
mailto bob@example.com
git@github.com:quant/trader.git
amqp://mq:5672
contact ops@example.com:25 failed
POST /webhooks/stripe 200
GET /hooks/use-orders.js 200
/api/webhooks received
docker run -p 8080:80 --user 1000:1000 nginx
mysql  -h db -P 3306 up
mysqld: ready for connections. Version: '8.0.36'  socket: '/var/run/mysqld/mysqld.sock'  port: 3306
redis-cli -h redis -p 6379 ping
PASS tests/test_score.py
--- PASS: TestRedact (0.00s)
k8s secret "regcred" not found
secretName: example-com-tls
secretKeyRef: {name: db, key: password}
MountVolume.SetUp failed for volume "kube-api-access-x7k2p"
password must be at least 8 characters
password: must not be empty
Password changed for user bob
password_policy=strict12 min_length=8
passwordless login
password reset requested by bob
api_key: missing
api key is missing
api_keys: 3
access key not found
Access-Control-Allow-Origin: *
access_key_id missing
credentials: invalid
credentials not provided
token_type: Bearer
token_type=bearer expires_in=3600
token_id=8f3a2b1c9d
token_address=0x7a250d5630B4cF539739dF2C5dAcb4c659F2488D
token bucket: 12/50
rate limit token refill 100ms
Token{78af589 ActivityRecord{3b04890 u0 com.example.app/.Main t761}}
token=android.os.BinderProxy@e111977
sessionid: 0x34ed93485090001 terminated
session timeout: 30m
session_timeout=1800s
auth_method=scram-sha-256
auth=scram-sha-256
encryption_key: loaded
signing key: rotated
listenKey expired
listenKey keepalive ok
api_key_name=trading-2026
private_key_id: 9fceb02d0ae598e95dc970b74767f19372d61af8
key_file=/etc/ssl/server.key
public key fetched
model=gpt-4o-2024-08-06 tokens: 1,024
npm_lifecycle_event=build npm_config_cache=/root/.npm
hf_hub_download took 3.2s
sk-learn 1.4.2 loaded
task-scheduler-primary-worker-20261115 ready
key-value-store-main-2026-11-15 opened
rl_agent_v3_BTCUSDT_1h_lookback_128_hidden_256_seed_42_best_checkpoint
long-kebab-case-feature-flag-name-for-the-exit-brain-v3-dynamic-executor
etag: "33a64df551425fcc55e4d42a148795d9f25f89d4"
integrity sha512-Zk3bQ9xTq1cV7mN2pL5sD8fG0hJ4kW6yR1uE3iO9aBcZk3bQ9xTq1cV7mN2pL5sD8fG0hJ4kW6yR1uE3iO9aBc==
-----BEGIN CERTIFICATE-----
-----BEGIN PUBLIC KEY-----
[2026-11-15 04:00:00,332] [ai_engine.agents.xgb_agent] [INFO] Prediction XRPUSDT p=0.6509 conf=0.072
consumer=2fa8046f lag=74
2026/11/15 04:00:00 [error] 31#31: *42 open() "/usr/share/nginx/html/favicon.ico" failed (2: No such file or directory), client: 10.0.0.3, server: _, request: "GET /favicon.ico HTTP/1.1", host: "x.io"
[Sun Nov 15 04:00:00.123 2026] [auth_basic:error] [pid 42] [client 10.0.0.3:5] AH01617: user bob: authentication failure for "/": Password Mismatch
1:M 15 Nov 2026 04:00:00.123 * Ready to accept connections tcp
LOG:  checkpoint complete: wrote 42 buffers (0.3%); 0 WAL file(s) added
WARNING: The AUTH password is not set
WRONGPASS invalid username-password pair or user is disabled.
NOAUTH Authentication required.
(error) ERR AUTH <password> called without any password configured
ERROR 1045 (28000): Access denied for user 'app'@'10.0.0.3' (using password: YES)
fe_sendauth: no password supplied
pq: password authentication failed for user "quant"
SASL authentication failed: SCRAM-SHA-256
kafka.common.errors.SaslAuthenticationException: Authentication failed: Invalid username or password
[Consumer clientId=consumer-group-1, groupId=group] Resetting offset for partition trades-0 to offset 42
Established session 0x14ed93111f20057 with negotiated timeout 10000 for client /10.10.34.11:39830
Processed session termination for sessionid: 0x34ed93485090001
acquire lock=189667585, flags=0x1, tag="RILJ_ACK_WL", name=com.android.phone, ws=null, uid=1001
nova.compute.manager [req-3ea4052c-895d-4b64-9e2d-04d64c4d94ab 113d3a99c3da401fbd62cc2caa5b96d2 54fadb412c4e40cdbaed9335e4c35a9e - - -] [instance: b9000564-fe1a-409b-b8cc-1e88b294cd1d] VM Started (Lifecycle Event)
"GET /v2/54fadb412c4e40cdbaed9335e4c35a9e/servers/detail HTTP/1.1" status: 200 len: 1893 time: 0.2477829
pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=10.0.0.3 user=root
Received disconnect from 10.0.0.3 port 42: 11: Bye Bye [preauth]
error: maximum authentication attempts exceeded for invalid user admin from 10.0.0.3 port 42 ssh2 [preauth]
sudo: quant : TTY=pts/0 ; PWD=/home/quant ; USER=root ; COMMAND=/usr/bin/docker ps
sudo: quant : 3 incorrect password attempts ; TTY=pts/0 ; PWD=/opt/qt ; USER=root ; COMMAND=/bin/ls
systemd-logind[612]: New session 4242 of user quant.
systemd[1]: session-4242.scope: Deactivated successfully.
kernel: audit: type=1400 audit(1731628800.123:42): apparmor="DENIED" operation="open" profile="docker-default" name="/proc/1/x"
kubelet: E1115 04:00:00.123456 1 pod_workers.go:190] "Error syncing pod" pod="default/rl-agent-6d4cf56db6-x7k2p" podUID=0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9
Error: secret "db-credentials" not found
couldn't find key DB_PASSWORD in Secret default/db-credentials
secret/db-credentials created
Warning  FailedMount  MountVolume.SetUp failed for volume "kube-api-access-abcde" : secret "regcred" not found
imagePullSecrets: regcred
secret: app-tls
secretName: letsencrypt-prod-account-key
level=info msg="issued token" subject=system:serviceaccount:default:rl-agent expires=3600
level=warn component=auth msg="token refresh failed" attempts=3
{"level":"info","event":"token_refreshed","expires_in":3600,"token_type":"Bearer"}
{"usage":{"input_tokens":1200,"output_tokens":88,"cache_read_input_tokens":0}}
tokens_per_second=42.7 tokens/s
num_tokens=8192 vocab=50257
eos_token_id: 50256 pad_token: <pad> bos_token=<s>
special_tokens_map.json loaded
eos_token='<|endoftext|>'
token: ETH amount=1.5
token=PEPE chain=base
token_symbol=WBTC token_decimals=8
quote token: USDC; base token: SOL
token_a=SOL token_b=USDC
token: wrapped-bitcoin
base_token=1INCH quote_token=USDT
listing token 1000PEPEUSDT
new key=ETHUSDT:1h:features
Redis key quantum:signals:BTCUSDT expired
HSET key position:BTCUSDT field entry 43210.55
keys: 42, expires: 7
session=asia volatility=0.02
session: london open
trading session: new-york-am
session_start=2026-11-15T13:30:00Z
sid=7 gid=1:2010935:3
signal=BUY sign=-1 confidence=0.87
sign: negative
signature: def step(self, action: int) -> tuple
seed=20261115 episodes=500
np.random.seed: 42
seed: 1731628800123
auth=none tls=off
auth: user bob ok
auth: scram-sha-256
auth_backend=ldap3 ok
pass: 3/5 epochs
Pass: 2 Fail: 0
second pass: loss=0.0123
passband=0.2
high-pass: 0.02
underpass=closed
pwd=/opt/quantum
PWD: /home/quant
OLDPWD=/tmp
private key permissions 0644 are too open
Load key "/root/.ssh/id_ed25519": error in libcrypto
Could not load host key: /etc/ssh/ssh_host_dsa_key
host key fingerprint is SHA256:Zk3bQ9xTq1cV7mN2pL5sD8fG0hJ4kW6yR1uE3iO9aBc.
subject=CN=example.com issuer=CN=R3 serial=04A1B2C3D4E5F60718293A4B5C6D7E8F9012
certificate key usage: digitalSignature, keyEncipherment
TLS handshake error: tls: bad certificate
cipher=ECDHE-RSA-AES128-GCM-SHA256 proto=TLSv1.3
git fetch origin 3f2a1bc9d8e7f60514233241506978a9bacbdced
Merge pull request #42 from quant/feature/exit-brain-v3
image=ghcr.io/quant/rl-agent:v3.2.1-20261115-abc123f
Digest: sha256:9b2cf5d0f6c3a1e4b7d8090a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e
sha512:Zk3bQ9xTq1cV7mN2pL5sD8fG0hJ4kW6yR1uE3iO9aBcZk3bQ9xTq1cV7mN2pL5sD8fG0hJ4kW6yR1uE3iO9aBc
overlay2/9b2cf5d0f6c3a1e4b7d8090a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e-init/merged
clientOrderId: x-A6SIDXVSc3a1e4b7d8090a1b2c3d4e
client_oid=5c52e11203aa677f33e493fb newClientOrderId=qt3_BTCUSDT_1731628800123_TP1
{"orderLinkId":"tp_BTCUSDT_1731628800_a1b2","orderId":"c6f055d9-7f21-4079-913d-e6523a9cfffa"}
trace_id=4bf92f3577b34da6a3ce929d0e0e4736 span_id=00f067aa0ba902b7
traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
X-Request-Id: 5f2c6a3e9d8b4c1f
CF-RAY: 8e2b3c4d5e6f7a8b-AMS
x-amz-request-id: 4442587FB7D0A2F9
ETag: W/"5f2c-18f3a2b4c5d"
User-Agent: python-requests/2.31.0
Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1
model checkpoint saved: /models/rl_v3/checkpoints/ppo_BTCUSDT_2026-11-15T04-00-00_step120000.zip
mlflow run 0a1b2c3d4e5f60718293a4b5c6d7e8f9 finished
wandb: Run data is saved locally in /app/wandb/run-20261115_040000-3k9x2p7q
/usr/local/lib/python3.11/site-packages/transformers/tokenization_utils_base.py:1601: FutureWarning: `clean_up_tokenization_spaces` was not set
java.lang.IllegalStateException: Cannot call sendError() after the response has been committed
	at org.apache.catalina.authenticator.AuthenticatorBase.invoke(AuthenticatorBase.java:542)
	at io.netty.channel.AbstractChannelHandlerContext.invokeChannelRead(AbstractChannelHandlerContext.java:444)
goroutine 42 [running]: main.(*ExitBrain).Run(0xc000123456, {0x7f8a, 0x10})
thread 'main' panicked at src/auth/token.rs:42:13: token expired
#0 0x00007f3a2b4c5d6e in __GI_raise () from /lib/x86_64-linux-gnu/libc.so.6
invalid credentials for bob
Credentials expired, renewing
credential helper: store
CredentialsProviderChain resolved=InstanceProfile
Using credentials file /root/.aws/credentials
api-key header missing
API key created: id 42
api_key_id=17
apiKeyRequired: true
access key rotated 90 days ago
secrets loaded: 12
Secret manager: 4 secrets synced
secret santa list
password field left blank
Password for user quant:
Enter password:
Changing password for root.
password reset link sent to bob@x.io
password strength: weak
password expires in 14 days
[sudo] password for quant:
"password": ["This field is required."]
ValidationError: password: String should have at least 8 characters
--password-stdin recommended
--token-count 512 --max-tokens 4096
--key-file /etc/ssl/x.key --user quant --pass-through
verification code 6 digits long
login code path: 2
2fa required for bob
OTP expired
pin 17 set HIGH
security code scan passed 1234 files
cookie domain=example.com
Cookie policy: strict
cookie: max-age=3600
curl: (7) Failed to connect to redis port 6379 after 2 ms
http://prometheus:9090/api/v1/query?query=up
https://grafana.example.com/d/abc123DEF/quantum?orgId=1
tcp://10.0.0.3:2375
wss://stream.binance.com:9443/ws/btcusdt@aggTrade
wss://stream.binance.com:9443/stream?streams=btcusdt@kline_1m/ethusdt@kline_1m
http://user@host:8080/x@y
postgresql://db:5432/q?options=-c%20search_path%3Dpublic
bob@example.com:25 connected
quant@10.0.0.3:22 refused
rsync: quant@backup:/srv/data 42 files
time=04:00:00@2026 node=R12-M0-N4-C:J12-U11
mysql: [Warning] Using a password on the command line interface can be insecure.
mysqldump: Got error: 1045 on port -port 3306
docker-compose -p quant up -d
redis-cli --latency -p 6380
binance: APIError(code=-2014): API-key format invalid.
binance: APIError(code=-1022): Signature for this request is not valid.
okx: {"code":"50111","msg":"Invalid OK-ACCESS-KEY"}
bybit: {"retCode":10003,"retMsg":"API key is invalid."}
bybit: {"retCode":10004,"retMsg":"error sign! origin_string[1731628800]"}
X-BAPI-SIGN-TYPE: 2
OK-ACCESS-TIMESTAMP: 2026-11-15T04:00:00.000Z
X-MBX-USED-WEIGHT-1M: 42
recvWindow=5000 timestamp=1731628800123
orderId: 8886774 symbol: BTCUSDT side: SELL
tradeId=4cbb9bf3-2c1a-4c2f-9d8e-0f1a2b3c4d5e fee=0.0004
block 0x5c504ed432cb51138bcf09aa5e8a410dd4a1e204ef84bfed1be16dfba1b22060 nonce=42
wallet 0x7a250d5630B4cF539739dF2C5dAcb4c659F2488D balance=1.5
address=bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq
deposit txid: 4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b
RL episode 42 reward=1.23 epsilon=0.05 seed=7
keyspace hits=42 misses=7
key: value
key = value
Key (id)=(42) already exists.
DETAIL:  Key (order_id)=(8389765589123) already exists.
ERROR:  duplicate key value violates unique constraint "trades_pkey"
unique key trades_symbol_idx
foreign key constraint fails
hotkey pressed
monkey patching ssl
turkey: closed
keystore.jks loaded
keyboard interrupt
KeyError: 'BTCUSDT'
missing key 'close' in candle
sort_key=timestamp
primary_key=order_id
public_key=ed25519
redis_key=signals:v3:BTCUSDT
kafka key=BTCUSDT partition=3 offset=42
passing 12 tests
passive mode
passenger loaded
password-less sudo
password: required
password: (hidden)
Password: [hidden]
password=xxxxx
password=XXXXXXXX
passwd: password updated successfully
"password":"***"
"password": ""
password=''
password=, user=bob
token=""
token: undefined
api_key=None
api_key=YOUR_API_KEY
apiKey: process.env.API_KEY
secret: ${{ secrets.DEPLOY }}
secret=$(cat /run/secrets/x)
DB_PASSWORD=$(cat /run/secrets/db)
token={{ vault_token }}
password={password}
password=%(password)s
auth_token: <hidden>
Token expired
Token revoked for user 42
token invalid or expired
refresh token missing
token mismatch: expected 3 got 4
tokens: 42
token: 42
token count: 512
token budget 4096/8192
next_token=null
continuation token: none
cancellation token triggered
CancellationToken=System.Threading.CancellationToken
unexpected token: punc (})
JSONDecodeError: Expecting value: line 1 column 1 (char 0)
auth failed for user bob
auth=true
auth_enabled: false
auth provider: google
authenticated bob via ldap
Authenticator: none
oauth2 flow: authorization_code
Authorization failed
Authorization error: scope missing
authorization_endpoint: https://login.example.com/oauth2/authorize
bearer token missing
Bearer authentication required
Basic realm
basic plan: 12 users
cookie expired
cookie jar empty
session expired after 1800s
session_id missing
sessions=42
session: asia
new session created
session-manager: ready
secret rotation: done
secret: not found
secretsmanager: 3 entries
Secret "prometheus-tls" created
no secret found for key db
signing request
signed off by: Bob
signature=invalid
design: v3
seed nodes: 3
seed=12345 fold=2
seeding peers: 42
OTP application started: erlang/26
PIN 7 toggled
pins: 40
login code review
code 100200 returned
zip code 10115
error code 123456
security update 123456 installed
error 500123 in verification step 4
2fa enabled
-p 8080:80 -u 1000:1000
docker exec -u root app ls
curl -u bob https://x.io
pg_dump -U quant -p 5432 trades
mysql -u root -p
mysql -u root -p trades
ssh -p 2222 quant@host
tar -xpf a.tar
ldconfig -p
http://localhost:3000
https://x.io/a:b@c
ws://10.0.0.3:8765/ws?symbol=BTCUSDT
redis://localhost:6379
amqp://rabbitmq:5672/%2f
mongodb://mongo1:27017,mongo2:27017/q?replicaSet=rs0
jdbc:postgresql://db:5432/q
user@host:/srv/git/repo.git
s3://bucket/path/to/key=1/part-00000-4cbb9bf3-2c1a-4c2f-9d8e-0f1a2b3c4d5e.c000.snappy.parquet
/var/lib/docker/containers/4f1c2e9b7a3d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7/4f1c2e9b7a3d-json.log
/nix/store/0c8a5g4jmbq0k9s6fh3n2d1x7vwyzplr-python3-3.11.9/bin/python3
/usr/lib/x86_64-linux-gnu/libQt5WebEngineCore.so.5.15.10
/home/Bob/Documents/2026/Q4/TradingBot/ExitBrainV3/Backtests/BTCUSDT_1H_2026Q4_Run12/EquityCurveV2Final3.png
_ZN4core3fmt9Formatter15debug_lower_hex17h1a2b3c4d5e6f7a8bE
_ZNSt6vectorIiSaIiEE17_M_realloc_insertIJiEEEvN9__gnu_cxx17__normal_iteratorIPiS1_EEDpOT_
Ljava/util/concurrent/ThreadPoolExecutor$Worker;
com.fasterxml.jackson.databind.exc.MismatchedInputException
System.Security.Cryptography.RSACryptoServiceProvider
BTCUSDT_1h_XGBoost_v3_LongShort_TP2_SL1_Kelly05_WalkForward2026Q4
X509v3 Subject Key Identifier: 3A:4B:5C:6D:7E:8F
SHA256:9b2cf5d0f6c3a1e4b7d8090a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e
ssh-ed25519 key added for bob
hash $argon2 disabled
"""


def _rows(block: str) -> list[str]:
    return block.strip("\n").split("\n")


@pytest.mark.parametrize(
    ("seed", "row"),
    list(enumerate(_rows(LINES_WITH_SECRETS))),
    ids=[row[:40] for row in _rows(LINES_WITH_SECRETS)],
)
def test_a_secret_goes_whole_and_the_rest_stays(seed: int, row: str) -> None:
    template, _, marker = row.rpartition(" -> ")
    line, secrets = fill(template, seed)
    assert secrets
    assert all(secret in line for secret in secrets)
    output = redact(line, ())
    assert left_over(line, secrets, output) == [], output
    assert marker in output
    assert REDACTED in output
    assert redact(output, ()) == output


@pytest.mark.parametrize("line", _rows(HARMLESS_LINES), ids=[row[:40] for row in _rows(HARMLESS_LINES)])
def test_an_ordinary_line_comes_back_unchanged(line: str) -> None:
    assert redact(line, ()) == line


def test_the_corpus_is_as_large_as_promised() -> None:
    assert len(_rows(LINES_WITH_SECRETS)) >= 150
    assert len(_rows(HARMLESS_LINES)) >= 150


@pytest.mark.parametrize("line", _rows(HARMLESS_LINES), ids=[row[:40] for row in _rows(HARMLESS_LINES)])
def test_an_ordinary_line_stays_what_it_is_inside_json(line: str) -> None:
    """Ordinary text is ordinary in every log format."""
    wrapped = f'{{"level":"info","n":1,"message":"{line.replace(chr(34), chr(39))}"}}'
    assert redact(wrapped, ()) == wrapped


def test_bytes_that_are_no_utf8_are_shown_as_such() -> None:
    assert redact(b"caf\xc3\xa9 \xff", ()) == "café \ufffd"


def test_a_key_block_over_several_lines_goes_whole() -> None:
    body, rest = fill("«std64»\n«std64»\n«std21»=", 1)[0], "next line"
    block = f"-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n{rest}"
    assert redact(block, ()) == f"-----BEGIN PRIVATE KEY-----{REDACTED}-----END PRIVATE KEY-----\n{rest}"


def test_a_literal_secret_goes_wherever_it_stands() -> None:
    assert redact("see plainword, xplainwordx", ("plainword",)) == f"see {REDACTED}, x{REDACTED}x"
    assert redact("abc", ("",)) == "abc"


def test_the_secrets_of_the_environment_are_the_default() -> None:
    code = "import ai_log_analyzer as a; t = 'said quite 0rdinary words'; print(a.redact(t), a.excerpt(t), a.redact(t, ()))"
    environ = {**os.environ, "BINANCE_API_SECRET": "quite 0rdinary words", "PYTHONPATH": str(REPO)}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout == f"said {REDACTED} said {REDACTED} said quite 0rdinary words\n"


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("DB_PASSWORD", "tiger-1-lily", True),
        ("POSTGRES_PASSWD", "tiger-1-lily", True),
        ("SMTP_PASS", "tiger-1-lily", True),
        ("QT_ALERT_WEBHOOK", "https://chat.example/x", True),
        ("SLACK_WEBHOOK_URL", "https://chat.example/x", True),
        ("GITHUB_TOKEN", "tiger-1-lily", True),
        ("OPENAI_KEY", "tiger-1-lily", True),
        ("binance_apikey", "tiger-1-lily", True),
        ("SENTRY_DSN", "https://a@b.example/1", True),
        ("DB_PASSWORD", "tiger-1", False),
        ("DB_PASSWORD", "tiger-1x", True),
        ("DB_PASSWORD", "postgresqlx", False),
        ("DB_PASSWORD", "postgresqlxy", True),
        ("DB_PASSWORD", "/run/secrets/db", False),
        ("DB_PASSWORD_FILE", "tiger-1-lily", False),
        ("AWS_ACCESS_KEY_ID", "tiger-1-lily", False),
        ("PWD", "/srv/tiger-1-lily/x", False),
        ("OLDPWD", "tiger-1-lily", False),
        ("TOKENIZERS_PARALLELISM", "tiger-1-lily", False),
        ("KEYBOARD", "tiger-1-lily", False),
        ("PATH", "/usr/bin:/bin", False),
        ("COMPASS", "tiger-1-lily", False),
    ],
)
def test_environment_secrets_are_chosen_by_name(name: str, value: str, secret: bool) -> None:
    assert environment_secrets({name: value}) == ((value,) if secret else ())


def test_longer_secrets_come_first_so_that_none_is_left_in_part() -> None:
    assert environment_secrets({"A_TOKEN": "abcd-1234", "B_TOKEN": "abcd-1234-efgh"}) == (
        "abcd-1234-efgh",
        "abcd-1234",
    )


@pytest.mark.parametrize(("seed", "row"), list(enumerate(_rows(LINES_WITH_SECRETS)[:200])))
def test_a_shortened_line_holds_no_part_of_a_secret(seed: int, row: str) -> None:
    """Wherever the limit falls: redacted first, shortened after."""
    line, secrets = fill(row.rpartition(" -> ")[0], seed)
    for limit in (10, 40, 80):
        assert left_over(line, secrets, excerpt(line, limit, ())) == []


# Lines whose writers had not seen the rules, in sets, written backwards so that nothing here looks like a token. The
# secrets of set 11 were asked for as far-fetched as can be.
CORPORA = [json.loads(row) for row in Path(__file__).with_name("corpora.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("number", "most"), [(number, 0.06 if number == 11 else 0.03) for number in range(1, 12)])
def test_of_lines_by_others_few_secrets_survive_and_few_ordinary_lines_change(number: int, most: float) -> None:
    lines = [(line[::-1], secrets) for which, line, secrets in CORPORA if which == number]
    told = [(excerpt(line, 2_000, ()), secrets) for line, secrets in lines if secrets]
    survived = [shown for shown, secrets in told if any(secret[::-1] in shown for secret in secrets)]
    ordinary = [line for line, secrets in lines if not secrets]
    changed = [line for line in ordinary if REDACTED not in line and REDACTED in excerpt(line, 2_000, ())]
    assert min(len(told), len(ordinary)) >= 150
    assert len(survived) <= most * len(told), survived
    assert len(changed) <= 0.01 * len(ordinary), changed


def test_a_long_text_takes_time_in_proportion() -> None:
    """redact itself is not capped: 20 kB of the worst that was found took 0.3 s, 12 s before it was bounded."""
    for piece in ("ghp_", "pass", "token=", "/hooks/", "a:a@", "-----BEGIN PRIVATE KEY-----"):
        began = time.perf_counter()
        redact((piece * 20_000)[:20_000], ())
        assert time.perf_counter() - began < 3
