def test_world(world):
    assert world.admin.me()["role"] == "admin"
    p, c = world.linked_patient()
    a = world.appointment(patientId=c["id"])
    assert p.get("/api/appointments").json()["total"] == 1
    assert world.doctor.patch(f"/api/appointments/{a['id']}", {"status": "completed"}).status_code == 200
    world.record(c["id"])
    for b in (world.admin, world.doctor, world.staff, p):
        print(b.get("/api/dashboard/stats").json())
