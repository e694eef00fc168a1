"""Least privilege, asked of the real authorizer: what the gateway's token may do beyond what every ServiceAccount may, what
the release's Roles say, and what it did, by the apiserver's audit log.

A right is (namespace, group, resource, name or "*", verb).
"""
from . import assertions as a
from .kubeapi import AGENT, Api, namespaced


def flat(namespace, rules):
    return {(namespace, group, resource, name, verb) for rule in rules for group in rule.get("apiGroups", ()) for resource in rule.get("resources", ())
            for name in rule.get("resourceNames") or ("*",) for verb in rule["verbs"]}


def granted(plane, token, namespaces):
    """What `kubectl auth can-i --list` shows for that token."""
    api = Api(plane.address, plane.home / "ca.crt", token)
    found = set()
    for namespace in namespaces:
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": namespace}}
        status = api.ask("POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", review)["status"]
        found |= flat(namespace, status["resourceRules"])
        found |= {(namespace, "", url, "*", verb) for rule in status["nonResourceRules"] for url in rule["nonResourceURLs"] for verb in rule["verbs"]}
    return found


def written(release, namespaces):
    """The rules of the release's own Roles."""
    roles = [role for namespace in namespaces for role in release.plane.api.ask(
        "GET", namespaced(namespace, "roles", group="rbac.authorization.k8s.io/v1"))["items"]]
    return {right for role in roles if role["metadata"].get("labels", {}).get("app.kubernetes.io/instance") == release.name
            for right in flat(role["metadata"]["namespace"], role["rules"])}


def check(release, namespaces=None):
    """The token's rights are the Roles' rules, none of them matches everything, and each request was one of them."""
    plane = release.plane
    namespaces = namespaces or (release.namespace, release.kubelet.namespace, "kube-system")
    bare = plane.namespace_made("bare")
    mine = granted(plane, plane.token(release.account(), release.namespace), namespaces) - granted(plane, plane.token("default", bare), namespaces)
    rules = written(release, namespaces)
    if mine != rules:
        raise a.Failed(f"granted and not in the Roles: {sorted(mine - rules)}; in the Roles and not granted: {sorted(rules - mine)}")
    wide = [right for right in rules if "*" in (right[1], right[2], right[4]) or right[2] == "secrets"]
    if wide:
        raise a.Failed(f"too much: {sorted(wide)}")
    return f"{len(rules)} rights"


def used(release, rules, excused=()):
    """How often each right was used; a request that is none of `rules` fails, and one that was forbidden. `excused`: (first, last,
    resources) of the audit log's records among which those resources may be forbidden; no resources: every one of them."""
    counts, outside, forbidden = {}, set(), 0
    account = f"system:serviceaccount:{release.namespace}:{release.account()}"
    for number, record in enumerate(release.plane.audit()):
        what = record.get("objectRef")
        asked = number >= release.asked and record["user"]["username"] == account and not record.get("userAgent", "").startswith(AGENT)
        if not asked or not what or what["resource"].startswith("selfsubject"):
            continue
        key = (what.get("namespace", ""), what.get("apiGroup", ""), what["resource"])
        right = next((one for one in ((*key, what.get("name"), record["verb"]), (*key, "*", record["verb"])) if one in rules), None)
        code = record.get("responseStatus", {}).get("code")
        known = any(first <= number < last and (not resources or what["resource"] in resources) for first, last, resources in excused)
        if right is None or (code == 403 and not known):
            outside.add(f"{record['verb']} {record['requestURI']} {code}")
        elif code == 403:
            forbidden += 1
        else:
            counts[right] = counts.get(right, 0) + 1
    if outside:
        raise a.Failed(f"outside the Roles: {sorted(outside)[:10]}")
    if not counts:
        raise a.Failed("the audit log holds no request of the gateway")
    said = [f"{verb} {resource} {count}" for (_, _, resource, _, verb), count in sorted(counts.items())]
    return ", ".join(said + ([f"{forbidden} refused while the rig withheld the right or the apiserver started"] if forbidden else []))
