"""Which column of a spreadsheet is which: headers by synonyms, as people and consoles name them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

SYNONYMS: Final[Mapping[str, frozenset[str]]] = {
    name: frozenset(words.split())
    for name, words in {
        "device": "device deviceid deviceuid deviceuuid deviceidentifier asset assetid assettag endpoint endpointid",
        "serial": "serial serialnumber serialno deviceserial deviceserialnumber sn",
        "imei": "imei imei1 imeinumber deviceimei",
        "android_id": "androidid ssaid",
        "mdm_id": "mdmid mdmdeviceid emmid",
        "sensor_id": "sensorid agentid",
        "mac": "mac macaddress macaddr wifimac wifimacaddress wlanmac hwaddr hardwareaddress physicaladdress "
        "callingstationid clientmac",
        "hostname": "hostname host devicename computername dnsname fqdn clientname",
        "ip": "ip ipaddress ipaddr ipv4 ipv4address ipv6 ipv6address address assignedip assignedaddress "
        "framedipaddress tunnelip tunneladdress virtualip virtualaddress privateip clientip vpnip leasedip",
        "user": "user username owner upn userprincipalname email emailaddress mail assigneduser employee login account",
        "group": "group devicegroup department population team ou orgunit organizationalunit",
        "package": "package packagename androidpackage appid applicationid bundleid",
        "app": "app appname application applicationname applabel label",
        "uid": "uid androiduid linuxuid appuid",
        "android_user": "androiduser androiduserid profileid",
        "installer": "installer installerpackage installerpackagename installedby",
        "signing_digest": "signingdigest signingcertificate signingcert signingsha256 certsha256 certificatesha256 "
        "signaturesha256 signer signature",
        "begin": "time timestamp start starttime from begin validfrom logintime connecttime connectedat assignedat "
        "leasestart sessionstart",
        "end": "end endtime stop stoptime to until validto logouttime disconnecttime disconnectedat leaseend expires "
        "expiry sessionend",
        "detail": "detail details note notes comment comments description remark",
    }.items()
}
"""Column by the words that may head it. Case, spaces, underscores, hyphens and dots in headers are ignored."""

_OF_EVENTS: Final = re.compile(
    r".*(?:bytes|octets|packets|pkts|bucket|duration|latency).*"
    r"|(?:src|source|dst|dest|destination|remote|peer)(?:ip|ipaddress|addr|address|port|host)?|[sd]port|localport"
    r"|ipproto|proto|protocol|transport|action|actiontype|event|eventtype|eventid|eventname|method|url|uri|query"
    r"|validlifetime|expire"
)
"""Headers of logs of connections or events, and of lease files: such a file is none of people's lists."""


def known_columns(names: Sequence[str]) -> dict[str, str] | None:
    """The file's header of each column that is known; the first where several are. None: a log of events."""
    found: dict[str, str] = {}
    for name in names:
        word = re.sub(r"[\s_.\-]", "", name.removeprefix("\ufeff")).lower()
        if _OF_EVENTS.fullmatch(word):
            return None
        for column, words in SYNONYMS.items():
            if word in words:
                found.setdefault(column, name)
    return found


def known_records(records: Iterable[tuple[int, Mapping[str, str]]]) -> Iterator[tuple[int, dict[str, str]]]:
    """The records of one file by the names of its known columns."""
    columns: dict[str, str] | None = None
    for position, record in records:
        columns = known_columns(list(record)) or {} if columns is None else columns
        yield position, {name: record[header] for name, header in columns.items()}
